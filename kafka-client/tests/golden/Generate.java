// Writes the batches beside it with Kafka's own classes, one file a codec:
//     java -cp "$KAFKA/libs/*" Generate.java .
// With `read FILE` it reads a file of batches instead, and prints codec, records and a digest.

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.security.MessageDigest;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MemoryRecordsBuilder;
import org.apache.kafka.common.record.MutableRecordBatch;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.record.RecordBatch;
import org.apache.kafka.common.record.TimestampType;

class Generate {
    static final int RECORDS = 300;

    public static void main(String[] args) throws Exception {
        if (args[0].equals("read")) {
            read(Path.of(args[1]));
            return;
        }
        Map<String, Compression> codecs = new LinkedHashMap<>();
        codecs.put("none", Compression.NONE);
        codecs.put("gzip", Compression.gzip().build());
        codecs.put("gzip-9", Compression.gzip().level(9).build());
        codecs.put("snappy", Compression.snappy().build());
        codecs.put("lz4", Compression.lz4().build());
        codecs.put("lz4-17", Compression.lz4().level(17).build());
        codecs.put("zstd", Compression.zstd().build());
        codecs.put("zstd-22", Compression.zstd().level(22).build());
        for (Map.Entry<String, Compression> codec : codecs.entrySet()) {
            // A batch without compression would be large, so it is a short one.
            int records = codec.getKey().equals("none") ? 3 : RECORDS;
            Path file = Path.of(args[0], codec.getKey() + ".bin");
            Files.write(file, batch(codec.getValue(), records));
        }
    }

    /** Together more than two LZ4 blocks of 64 KiB and four Snappy blocks of 32 KiB. */
    static byte[] batch(Compression compression, int records) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1 << 20),
            RecordBatch.CURRENT_MAGIC_VALUE, compression, TimestampType.CREATE_TIME, 0L);
        for (int i = 0; i < records; i++) {
            byte[] key = i % 3 == 0 ? null : utf8("key-" + i);
            byte[] value = i % 7 == 3 ? null : utf8(("record " + i + ", ").repeat(i % 80));
            Header[] headers = i % 5 != 0 ? Record.EMPTY_HEADERS : new Header[] {
                new RecordHeader("tag", utf8("one")), new RecordHeader("tag", null),
            };
            builder.append(1_700_000_000_000L + i * 7L, key, value, headers);
        }
        ByteBuffer buffer = builder.build().buffer();
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return bytes;
    }

    static void read(Path file) throws Exception {
        MemoryRecords all = MemoryRecords.readableRecords(ByteBuffer.wrap(Files.readAllBytes(file)));
        for (MutableRecordBatch batch : all.batches()) {
            batch.ensureValid();
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            int records = 0;
            for (Record record : batch) {
                records++;
                if (record.hasValue()) {
                    byte[] value = new byte[record.valueSize()];
                    record.value().get(value);
                    digest.update(value);
                }
            }
            String hex = HexFormat.of().formatHex(digest.digest());
            System.out.println(batch.compressionType().name + " " + records + " " + hex);
        }
    }

    static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
