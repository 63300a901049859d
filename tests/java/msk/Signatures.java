package msk;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Clock;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.AwsCredentials;
import software.amazon.awssdk.auth.credentials.AwsSessionCredentials;
import software.amazon.awssdk.auth.signer.Aws4Signer;
import software.amazon.awssdk.auth.signer.params.Aws4PresignerParams;
import software.amazon.awssdk.http.SdkHttpFullRequest;
import software.amazon.awssdk.http.SdkHttpMethod;
import software.amazon.awssdk.regions.Region;

/** Checks a signed URL as Amazon MSK does, with the signature computed by Amazon's own signer. */
final class Signatures {
    private static final DateTimeFormatter TIME =
            DateTimeFormatter.ofPattern("yyyyMMdd'T'HHmmss'Z'").withZone(ZoneOffset.UTC);
    private static final List<String> FIELDS = List.of("action", "x-amz-algorithm",
            "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-signature",
            "x-amz-signedheaders");

    private Signatures() {}

    /** Whose key signed these arguments, and until when that counts, in ms since 1970. */
    record Proof(String id, long end) {}

    /** Refuses in the words of AWS. The names of the arguments are in lower case. */
    static Proof check(String host, Map<String, String> arguments) {
        for (String field : FIELDS) {
            require(!arguments.getOrDefault(field, "").isEmpty(), "Missing " + field);
        }
        TreeSet<String> others = new TreeSet<>(arguments.keySet());
        others.removeAll(FIELDS);
        others.removeAll(List.of("x-amz-security-token", "user-agent", "version", "host"));
        require(others.isEmpty(), "Unknown " + others);
        expect(arguments, "action", "kafka-cluster:Connect");
        expect(arguments, "x-amz-algorithm", "AWS4-HMAC-SHA256");
        expect(arguments, "x-amz-signedheaders", "host");
        long expires = Long.parseLong(arguments.get("x-amz-expires"));
        require(expires > 0 && expires <= 900, "Session too long");

        String date = arguments.get("x-amz-date");
        String[] credential = arguments.get("x-amz-credential").split("/");
        String region = System.getProperty("msk.region");
        String scope = String.join("/", date.substring(0, 8), region, "kafka-cluster", "aws4_request");
        require(arguments.get("x-amz-credential").equals(credential[0] + "/" + scope),
                "Credential should be scoped to a valid region and service");
        Instant signed = Instant.from(TIME.parse(date));
        Instant now = now();
        Instant earliest = now.minusSeconds(900);
        require(!signed.isBefore(earliest), "Signature expired: " + date + " is now earlier than "
                + TIME.format(earliest) + " (" + TIME.format(now) + " - 15 min.)");
        Instant latest = now.plusSeconds(300);
        require(!signed.isAfter(latest), "Signature not yet current: " + date
                + " is still later than " + TIME.format(latest) + " (" + TIME.format(now)
                + " + 5 min.)");

        AwsCredentials keys = keys(credential[0], arguments.get("x-amz-security-token"));
        SdkHttpFullRequest request = SdkHttpFullRequest.builder().method(SdkHttpMethod.GET)
                .protocol("https").host(host)
                .appendRawQueryParameter("Action", "kafka-cluster:Connect").build();
        Aws4PresignerParams how = Aws4PresignerParams.builder().awsCredentials(keys)
                .signingName("kafka-cluster").signingRegion(Region.of(region))
                .signingClockOverride(Clock.fixed(signed, ZoneOffset.UTC))
                .expirationTime(signed.plusSeconds(expires)).build();
        String ours = Aws4Signer.create().presign(request, how)
                .firstMatchingRawQueryParameter("X-Amz-Signature").orElseThrow();
        require(ours.equals(arguments.get("x-amz-signature")), "The request signature we calculated"
                + " does not match the signature you provided.");
        return new Proof(credential[0], signed.plusSeconds(expires).toEpochMilli());
    }

    /** Those of `id:secret` or `id:secret:token` in the property `msk.keys`. */
    private static AwsCredentials keys(String id, String token) {
        for (String known : System.getProperty("msk.keys").split(",")) {
            String[] parts = known.split(":");
            if (parts[0].equals(id)) {
                require(parts.length == 2 ? token == null : parts[2].equals(token),
                        "The security token included in the request is invalid.");
                return token == null ? AwsBasicCredentials.create(id, parts[1])
                        : AwsSessionCredentials.create(id, parts[1], token);
            }
        }
        throw new IllegalArgumentException("The access key is unknown");
    }

    /** This clock is ahead by the seconds in a file that a test may rewrite. */
    private static Instant now() {
        try {
            String ahead = Files.readString(Path.of(System.getProperty("msk.clock")));
            return Instant.now().plusSeconds(Long.parseLong(ahead.strip()));
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }

    private static void expect(Map<String, String> arguments, String name, String value) {
        require(value.equals(arguments.get(name)), "Wrong " + name);
    }

    static void require(boolean holds, String otherwise) {
        if (!holds) {
            throw new IllegalArgumentException(otherwise);
        }
    }
}
