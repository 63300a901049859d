package msk;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.security.Provider;
import java.security.Security;
import java.util.Arrays;
import java.util.Map;
import java.util.UUID;
import javax.security.auth.Subject;
import javax.security.auth.callback.CallbackHandler;
import javax.security.auth.spi.LoginModule;
import javax.security.sasl.SaslServer;
import javax.security.sasl.SaslServerFactory;
import org.apache.kafka.common.errors.SaslAuthenticationException;
import org.apache.kafka.common.security.authenticator.SaslInternalConfigs;

/** Gives a broker of Apache Kafka the mechanism AWS_MSK_IAM, which Amazon's brokers alone have. */
public final class IamLoginModule implements LoginModule {
    static {
        Security.addProvider(new Mechanisms());
    }

    @Override
    public void initialize(Subject subject, CallbackHandler handler, Map<String, ?> shared,
            Map<String, ?> options) {}

    @Override
    public boolean login() {
        return true;
    }

    @Override
    public boolean commit() {
        return true;
    }

    @Override
    public boolean abort() {
        return false;
    }

    @Override
    public boolean logout() {
        return true;
    }

    private static final class Mechanisms extends Provider {
        Mechanisms() {
            super("msk", "1", "AWS_MSK_IAM of a broker");
            put("SaslServerFactory.AWS_MSK_IAM", Factory.class.getName());
        }
    }

    /** Java makes it by its name. */
    public static final class Factory implements SaslServerFactory {
        @Override
        public SaslServer createSaslServer(String mechanism, String protocol, String serverName,
                Map<String, ?> properties, CallbackHandler handler) {
            return new Server();
        }

        @Override
        public String[] getMechanismNames(Map<String, ?> properties) {
            return new String[] {"AWS_MSK_IAM"};
        }
    }

    private static final class Server implements SaslServer {
        private static final String VERSION = "2020_10_22";
        private Signatures.Proof proof;

        @Override
        public byte[] evaluateResponse(byte[] response) {
            String request = UUID.randomUUID().toString();
            ObjectMapper json = new ObjectMapper();
            try {
                Map<String, String> fields = json.readValue(response,
                        json.getTypeFactory().constructMapType(Map.class, String.class, String.class));
                Signatures.require(VERSION.equals(fields.get("version")), "Wrong version");
                Signatures.require(fields.get("user-agent") != null, "Missing user-agent");
                String host = fields.get("host");
                String[] own = System.getProperty("msk.hosts").split(",");
                Signatures.require(Arrays.asList(own).contains(host), "Wrong host");
                proof = Signatures.check(host, fields);
                return json.writeValueAsBytes(Map.of("version", VERSION, "request-id", request));
            } catch (IOException | IllegalArgumentException error) {
                throw new SaslAuthenticationException("[" + request + "]: " + error.getMessage());
            }
        }

        @Override
        public boolean isComplete() {
            return proof != null;
        }

        @Override
        public String getAuthorizationID() {
            return proof.id();
        }

        @Override
        public Object getNegotiatedProperty(String name) {
            return SaslInternalConfigs.CREDENTIAL_LIFETIME_MS_SASL_NEGOTIATED_PROPERTY_KEY
                    .equals(name) ? proof.end() : null;
        }

        @Override
        public String getMechanismName() {
            return "AWS_MSK_IAM";
        }

        @Override
        public byte[] unwrap(byte[] incoming, int offset, int length) {
            throw new IllegalStateException("no security layer");
        }

        @Override
        public byte[] wrap(byte[] outgoing, int offset, int length) {
            throw new IllegalStateException("no security layer");
        }

        @Override
        public void dispose() {}
    }
}
