// Writes the batches beside it with Kafka's own classes, a file for each codec and each special case
// (librdkafka's are from bench/examples/librdkafka_batches.rs):
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
import org.apache.kafka.common.record.ControlRecordType;
import org.apache.kafka.common.record.DefaultRecordBatch;
import org.apache.kafka.common.record.EndTransactionMarker;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MemoryRecordsBuilder;
import org.apache.kafka.common.record.MutableRecordBatch;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.record.RecordBatch;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.utils.ByteBufferOutputStream;

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
        for (Map.Entry<String, MemoryRecords> special : specials().entrySet()) {
            Files.write(Path.of(args[0], special.getKey() + ".bin"), bytes(special.getValue()));
        }
    }

    /** Batches that differ in their header, and what a record may lack. */
    static Map<String, MemoryRecords> specials() {
        Map<String, MemoryRecords> specials = new LinkedHashMap<>();
        // Sequences 2147483646, 2147483647, 0, 1.
        MemoryRecordsBuilder wrap = builder(TimestampType.CREATE_TIME, Integer.MAX_VALUE - 1, false, NONE);
        wrap.append(5L, (byte[]) null, null, Record.EMPTY_HEADERS);
        wrap.append(4L, new byte[0], new byte[0], Record.EMPTY_HEADERS);
        wrap.append(6L, allBytes(), allBytes(), new Header[] {
            new RecordHeader("twice", utf8("one")), new RecordHeader("", allBytes()),
            new RecordHeader("twice", null), new RecordHeader("twice", new byte[0]),
            new RecordHeader("schl\u00fcssel", utf8("\u00fc")),
        });
        wrap.append(5L, null, utf8("last"), Record.EMPTY_HEADERS);
        specials.put("wrap", wrap.build());

        MemoryRecordsBuilder appended = builder(TimestampType.LOG_APPEND_TIME, 0, true, NONE);
        appended.append(5L, null, utf8("one"), Record.EMPTY_HEADERS);
        appended.append(6L, null, utf8("two"), Record.EMPTY_HEADERS);
        specials.put("log-append-time", appended.build());

        MemoryRecordsBuilder compacted = builder(TimestampType.CREATE_TIME, 0, false, HORIZON);
        compacted.appendWithOffset(102L, HORIZON + 1, (byte[]) null, utf8("one"));
        compacted.appendWithOffset(107L, HORIZON + 2, (byte[]) null, utf8("two"));
        compacted.overrideLastOffset(109L);
        specials.put("compacted", compacted.build());

        ByteBuffer empty = ByteBuffer.allocate(DefaultRecordBatch.RECORD_BATCH_OVERHEAD);
        DefaultRecordBatch.writeEmptyHeader(empty, RecordBatch.CURRENT_MAGIC_VALUE, 7L, (short) 3, 0,
            100L, 109L, 4, TimestampType.CREATE_TIME, 5L, false, false);
        empty.flip();
        specials.put("empty", MemoryRecords.readableRecords(empty));

        specials.put("control", MemoryRecords.withEndTransactionMarker(110L, 5L, 4, 7L, (short) 3,
            new EndTransactionMarker(ControlRecordType.COMMIT, 9)));
        return specials;
    }

    static final long NONE = RecordBatch.NO_TIMESTAMP;
    static final long HORIZON = 1_700_000_000_000L;

    static MemoryRecordsBuilder builder(TimestampType time, int sequence, boolean transactional,
            long deleteHorizon) {
        long base = deleteHorizon == NONE ? 0L : 100L;
        return new MemoryRecordsBuilder(new ByteBufferOutputStream(1 << 16),
            RecordBatch.CURRENT_MAGIC_VALUE, Compression.NONE, time, base, 77L, 7L, (short) 3,
            sequence, transactional, false, RecordBatch.NO_PARTITION_LEADER_EPOCH, 1 << 16,
            deleteHorizon);
    }

    static byte[] allBytes() {
        byte[] bytes = new byte[256];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = (byte) i;
        }
        return bytes;
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
        return bytes(builder.build());
    }

    static byte[] bytes(MemoryRecords records) {
        ByteBuffer buffer = records.buffer();
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
