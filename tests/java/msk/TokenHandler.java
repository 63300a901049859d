package msk;

import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import javax.security.auth.callback.Callback;
import javax.security.auth.callback.UnsupportedCallbackException;
import javax.security.auth.login.AppConfigurationEntry;
import org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerToken;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallback;

/** A broker's check of a token that is a signed URL. */
public final class TokenHandler implements AuthenticateCallbackHandler {
    @Override
    public void configure(Map<String, ?> configs, String mechanism,
            List<AppConfigurationEntry> entries) {}

    @Override
    public void handle(Callback[] callbacks) throws UnsupportedCallbackException {
        for (Callback callback : callbacks) {
            if (!(callback instanceof OAuthBearerValidatorCallback question)) {
                throw new UnsupportedCallbackException(callback);
            }
            try {
                question.token(check(question.tokenValue()));
            } catch (IllegalArgumentException error) {
                question.error("[" + UUID.randomUUID() + "]: " + error.getMessage(), null, null);
            }
        }
    }

    private static Token check(String value) {
        byte[] decoded = Base64.getUrlDecoder().decode(value);
        Signatures.require(!value.contains("="), "Padded token");
        URI url = URI.create(new String(decoded, StandardCharsets.UTF_8));
        String host = "kafka." + System.getProperty("msk.region") + ".amazonaws.com";
        // Amazon's library for Java writes no path, the others write `/`.
        boolean isBare = url.getPath().isEmpty() || url.getPath().equals("/");
        Signatures.require("https".equals(url.getScheme()) && isBare, "Wrong URL");
        Map<String, String> arguments = new HashMap<>();
        for (String pair : url.getRawQuery().split("&")) {
            String[] parts = pair.split("=", 2);
            String name = parts[0].toLowerCase(Locale.ROOT);
            String argument = URLDecoder.decode(parts[1], StandardCharsets.UTF_8);
            Signatures.require(arguments.put(name, argument) == null, "Repeated " + name);
        }
        Signatures.require(arguments.containsKey("user-agent"), "Missing user-agent");
        // The region in the host is that of the credential, which is what AWS tells of.
        Signatures.Proof proof = Signatures.check(host, arguments);
        Signatures.require(host.equals(url.getHost()), "Wrong host");
        return new Token(value, proof.id(), proof.end());
    }

    @Override
    public void close() {}

    private record Token(String value, String principalName, long lifetimeMs)
            implements OAuthBearerToken {
        @Override
        public Set<String> scope() {
            return Set.of();
        }

        @Override
        public Long startTimeMs() {
            return null;
        }
    }
}
