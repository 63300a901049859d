"""Decodes the first record of each topic with Confluent's client, and prints topic, key and value.

What JSON has no word for is printed as it may be sent: bytes in base64, times as in RFC 3339.
"""

import base64
import datetime
import decimal
import json
import sys
import uuid

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

SUBJECTS = {"subject.name.strategy.type": "TOPIC"}


def field(number, name, of, type_name=None):
    of, label = of.removeprefix("repeated "), of.startswith("repeated ")
    described = {"number": number, "name": name, "type": f"TYPE_{of.upper()}"}
    described["label"] = "LABEL_REPEATED" if label else "LABEL_OPTIONAL"
    return described | ({"typeName": type_name} if type_name else {})


def order():
    entry = [field(1, "key", "string"), field(2, "value", "sint64")]
    nested = [
        {"name": "CountsEntry", "field": entry, "options": {"mapEntry": True}},
        {"name": "Line", "field": [field(1, "sku", "string"), field(2, "payload", "bytes")]},
    ]
    fields = [
        field(1, "id", "int64"),
        field(2, "order_lines", "repeated message", ".com.acme.Order.Line"),
        field(3, "counts", "repeated message", ".com.acme.Order.CountsEntry"),
        field(4, "ratios", "repeated double"),
    ]
    message = {"name": "Order", "field": fields, "nestedType": nested}
    file = {"name": "o.proto", "package": "com.acme", "syntax": "proto3", "messageType": [message]}
    pool = descriptor_pool.DescriptorPool()
    file = json_format.ParseDict(file, descriptor_pb2.FileDescriptorProto())
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("com.acme.Order"))


def plain(value):
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    return json_format.MessageToDict(value, always_print_fields_with_no_presence=True)


def first(consumer, topic):
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = consumer.poll(20)
    if message is None or message.error():
        sys.exit(f"{topic}: {message and message.error()}")
    return message


def main(bootstrap, registry, guids):
    avro = AvroDeserializer(SchemaRegistryClient({"url": registry}), conf=SUBJECTS)
    deserializers = {
        "avro": avro,
        "avro-header": avro,
        "avro-guid": AvroDeserializer(SchemaRegistryClient({"url": guids}), conf=SUBJECTS),
        "json-schema": JSONDeserializer(
            None, schema_registry_client=SchemaRegistryClient({"url": registry}), conf=SUBJECTS
        ),
        "protobuf": ProtobufDeserializer(order(), conf={"use.deprecated.format": False}),
    }
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "schemas"})
    for topic, deserialize in deserializers.items():
        message = first(consumer, topic)
        of = lambda part: SerializationContext(topic, part, message.headers() or [])
        key = message.key() and avro(message.key(), of(MessageField.KEY))
        value = deserialize(message.value(), of(MessageField.VALUE))
        print(json.dumps([topic, key, value], default=plain))
    consumer.close()


main(*sys.argv[1:])
