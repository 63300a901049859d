"""Writes records with confluent-kafka's serializers: BOOTSTRAP REGISTRY TOPIC PLACE, where the schema's id
is in the `prefix` or, as a GUID, in a `header`. Tells the values as JSON, one a line, in order."""

import datetime
import decimal
import json
import sys

from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "com.acme",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2}},
        {"name": "note", "type": ["null", "string", "long"]},
        {"name": "raw", "type": "bytes"},
        {"name": "tags", "type": {"type": "map", "values": "int"}},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "DONE"]}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "lines", "type": {"type": "array", "items": {
            "type": "record", "name": "Line", "fields": [{"name": "count", "type": "int"}]}}},
    ],
}
AT = datetime.datetime(2026, 11, 30, 12, 30, 0, 500000, tzinfo=datetime.timezone.utc)
AT_MS = 1796041800500


def avro(client):
    """A record of Avro, and what it is as JSON."""
    order = {
        "id": 9007199254740993,
        "price": decimal.Decimal("12345678901234567890.50"),
        "note": 9223372036854775807,
        "raw": b"\x00\xff",
        "tags": {"ä": 1},
        "state": "DONE",
        "at": AT,
        "lines": [{"count": 1}, {"count": -2}],
    }
    told = (
        '{"id":9007199254740993,"price":12345678901234567890.50,"note":9223372036854775807,"raw":"AP8=",'
        '"tags":{"ä":1},"state":"DONE","at":%d,"lines":[{"count":1},{"count":-2}]}' % AT_MS
    )
    return AvroSerializer(client, json.dumps(ORDER)), order, told


def json_schema(client):
    """A document of JSON Schema."""
    schema = {"title": "Order", "type": "object", "properties": {"id": {"type": "integer"}}}
    return JSONSerializer(json.dumps(schema), client), {"id": 9007199254740993}, '{"id":9007199254740993}'


def protobuf(client):
    """A message inside another one, of Protobuf."""
    file = descriptor_pb2.FileDescriptorProto(
        name="order.proto", package="acme", syntax="proto3", dependency=["google/protobuf/timestamp.proto"]
    )
    file.message_type.add(name="First")
    outer = file.message_type.add(name="Outer")
    inner = outer.nested_type.add(name="Order")
    kinds = descriptor_pb2.FieldDescriptorProto
    state = inner.enum_type.add(name="State")
    state.value.add(name="NEW", number=0)
    state.value.add(name="DONE", number=1)
    entry = inner.nested_type.add(name="TagsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=1, type=kinds.TYPE_STRING)
    entry.field.add(name="value", number=2, label=1, type=kinds.TYPE_INT32)
    line = inner.nested_type.add(name="Line")
    line.field.add(name="count", number=1, label=1, type=kinds.TYPE_SINT32)
    inside = ".acme.Outer.Order."
    inner.field.add(name="order_id", number=1, label=1, type=kinds.TYPE_INT64)
    inner.field.add(name="raw", number=2, label=1, type=kinds.TYPE_BYTES)
    inner.field.add(name="tags", number=3, label=3, type=kinds.TYPE_MESSAGE, type_name=inside + "TagsEntry")
    inner.field.add(name="state", number=4, label=1, type=kinds.TYPE_ENUM, type_name=inside + "State")
    stamp = ".google.protobuf.Timestamp"
    inner.field.add(name="at", number=5, label=1, type=kinds.TYPE_MESSAGE, type_name=stamp)
    inner.field.add(name="lines", number=6, label=3, type=kinds.TYPE_MESSAGE, type_name=inside + "Line")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("acme.Outer.Order"))
    order = kind(order_id=9007199254740993, raw=b"\x00\xff", tags={"ä": 1}, state=1)
    order.at.seconds, order.at.nanos = AT_MS // 1000, 500_000_000
    order.lines.add(count=-2)
    told = (
        '{"orderId":"9007199254740993","raw":"AP8=","tags":{"ä":1},"state":"DONE",'
        '"at":"2026-11-30T12:30:00.500Z","lines":[{"count":-2}]}'
    )
    return ProtobufSerializer(kind, client, {"use.deprecated.format": False}), order, told


def main():
    bootstrap, registry, topic = sys.argv[1:]
    client = SchemaRegistryClient({"url": registry})
    producer = Producer({"bootstrap.servers": bootstrap})
    key = AvroSerializer(client, '"long"')
    for number, of in enumerate((avro, json_schema, protobuf)):
        # Each has a subject of its own.
        serializer, value, told = of(client)
        context = SerializationContext(f"{topic}-{of.__name__}", MessageField.VALUE)
        keys = SerializationContext(topic, MessageField.KEY)
        producer.produce(topic, key=key(number, keys), value=serializer(value, context))
        print(told)
    if producer.flush(10) > 0:
        sys.exit("not all is written")


if __name__ == "__main__":
    main()
