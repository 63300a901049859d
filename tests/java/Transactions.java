// Writes to partition 0 of a topic: java Transactions.java SERVERS TOPIC

import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

class Transactions {
    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", args[0],
            "transactional.id", "transactions",
            "transaction.timeout.ms", "60000",
            // So that records of a transaction that is aborted are in the log all the same.
            "linger.ms", "0");
        var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
        producer.initTransactions();
        write(producer, args[1], "aborted-1", "aborted-2", "aborted-3");
        producer.abortTransaction();
        write(producer, args[1], "committed-1", "committed-2");
        producer.commitTransaction();
        write(producer, args[1], "aborted-4");
        producer.abortTransaction();
        write(producer, args[1], "committed-3");
        producer.commitTransaction();
        write(producer, args[1], "open-1", "open-2");
        // Closing it would abort what is open.
        Runtime.getRuntime().halt(0);
    }

    static void write(KafkaProducer<String, String> producer, String topic, String... values)
            throws Exception {
        producer.beginTransaction();
        for (String value : List.of(values)) {
            producer.send(new ProducerRecord<>(topic, 0, null, value)).get();
        }
    }
}
