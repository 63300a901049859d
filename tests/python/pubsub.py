"""Sends commands of APISIX's pubsub protocol with websocket-client and protobuf: a line of JSON each in,
a line of JSON for each reply out. The arguments are the compiled pubsub.proto and the URL."""

import sys

import websocket
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

with open(sys.argv[1], "rb") as compiled:
    files = descriptor_pb2.FileDescriptorSet.FromString(compiled.read())
pool = descriptor_pool.DescriptorPool()
for file in files.file:
    pool.Add(file)
Request, Reply = (
    message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    for name in ("PubSubReq", "PubSubResp")
)
socket = websocket.create_connection(sys.argv[2], timeout=60)
for line in sys.stdin:
    request = json_format.Parse(line, Request())
    socket.send_binary(request.SerializeToString())
    reply = Reply.FromString(socket.recv())
    text = json_format.MessageToJson(
        reply,
        indent=None,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    print(text, flush=True)
socket.close()
