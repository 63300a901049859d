//! Each row of the message format, from a client through Envoy into Kafka, byte for byte.

use anyhow::Context as _;
use harness::http::Request;
use harness::kafka::KafkaVersion;
use kafka_upstream_tests::{Gateway, record_of};
use serde_json::json;

/// A request and the record that it must become.
struct Row {
    method: &'static str,
    target: &'static str,
    content_type: Option<&'static str>,
    body: &'static [u8],
    value: &'static str,
}

const POST: Row =
    Row { method: "POST", target: "/kafka", content_type: None, body: b"", value: "" };

const ROWS: [Row; 23] = [
    Row {
        method: "GET",
        value: r#"{"body_base64":true,"uri_args":{},"uri":"/kafka","body_args":{},"body":"","method":"GET"}"#,
        ..POST
    },
    Row {
        value: r#"{"body_base64":true,"uri_args":{},"uri":"/kafka","body_args":{},"body":"","method":"POST"}"#,
        ..POST
    },
    Row {
        target: "/kafka?a=1&b&a=2&c=&a%20b=%C3%BC+x&d=%26%3D",
        value: r#"{"body_base64":true,"uri_args":{"a":["1","2"],"a b":"ü x","b":true,"c":"","d":"&="},"uri":"/kafka?a=1&b&a=2&c=&a%20b=%C3%BC+x&d=%26%3D","body_args":{},"body":"","method":"POST"}"#,
        ..POST
    },
    Row {
        content_type: Some("application/json"),
        body: br#" {"a": 1.50, "b": [1e400, "\u00fc"], "a": 2}"#,
        value: r#"{"uri_args":{},"uri":"/kafka","body_args":{"a": 1.50, "b": [1e400, "\u00fc"], "a": 2},"body":" {\"a\": 1.50, \"b\": [1e400, \"\\u00fc\"], \"a\": 2}","method":"POST"}"#,
        ..POST
    },
    Row {
        content_type: Some("application/json; charset=utf-8"),
        body: b"null",
        value: r#"{"uri_args":{},"uri":"/kafka","body_args":null,"body":"null","method":"POST"}"#,
        ..POST
    },
    Row {
        content_type: Some("application/json"),
        value: r#"{"uri_args":{},"uri":"/kafka","body_args":{},"body":"","method":"POST"}"#,
        ..POST
    },
    Row {
        content_type: Some("application/x-www-form-urlencoded"),
        body: b"a=1&a=2&flag&e=&x+y=%C3%A9",
        value: r#"{"uri_args":{},"uri":"/kafka","body_args":{"a":["1","2"],"e":"","flag":true,"x y":"é"},"body":"a=1&a=2&flag&e=&x+y=%C3%A9","method":"POST"}"#,
        ..POST
    },
    Row {
        content_type: Some("multipart/form-data; boundary=XX"),
        body: b"--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--XX\r\nContent-Disposition: form-data; name=\"a\"; filename=\"f;g.txt\"\r\nContent-Type: text/plain\r\n\r\ntwo\r\nlines\r\n--XX--\r\n",
        value: r#"{"uri_args":{},"uri":"/kafka","body_args":{"a":["1","two\r\nlines"]},"body":"--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--XX\r\nContent-Disposition: form-data; name=\"a\"; filename=\"f;g.txt\"\r\nContent-Type: text/plain\r\n\r\ntwo\r\nlines\r\n--XX--\r\n","method":"POST"}"#,
        ..POST
    },
    text_row("text/plain"),
    text_row("text/html"),
    text_row("application/xml"),
    text_row("text/xml"),
    text_row("application/soap+xml"),
    Row {
        content_type: Some("TEXT/Plain; charset=utf-8"),
        body: b"\x01\x7f \"\\/\n",
        value: "{\"uri_args\":{},\"uri\":\"/kafka\",\"body_args\":{},\"body\":\"\\u0001\x7f \\\"\\\\/\\n\",\"method\":\"POST\"}",
        ..POST
    },
    Row { content_type: Some("application/octet-stream"), body: b"\x00\xff\x80", ..BASE64 },
    Row { content_type: Some("application/cloudevents+json"), body: b"\x00\xff\x80", ..BASE64 },
    Row { content_type: None, body: b"\x00\xff\x80", ..BASE64 },
    Row { content_type: Some("text/plain"), body: b"\x00\xff\x80", ..BASE64 },
    Row {
        content_type: Some("application/json, application/json"),
        body: b"\xef\xbb\xbf[1]",
        value: "{\"uri_args\":{},\"uri\":\"/kafka\",\"body_args\":[1],\"body\":\"\u{feff}[1]\",\"method\":\"POST\"}",
        ..POST
    },
    Row {
        target: "/kafka?q=%80",
        content_type: Some("application/x-www-form-urlencoded; charset=windows-1252"),
        body: b"%80=%E9",
        value: r#"{"uri_args":{"q":"€"},"uri":"/kafka?q=%80","body_args":{"€":"é"},"body":"%80=%E9","method":"POST"}"#,
        ..POST
    },
    Row {
        content_type: Some("application/x-www-form-urlencoded"),
        body: b"a=\xe9",
        value: r#"{"body_base64":true,"uri_args":{},"uri":"/kafka","body_args":{"a":"é"},"body":"YT3p","method":"POST"}"#,
        ..POST
    },
    Row {
        content_type: Some("multipart/form-data; boundary=X"),
        body: b"--X\r\ncontent-disposition: form-data; name=t\r\n\r\n1\r\n--X\r\ncontent-disposition: form-data; name=p; filename=p.png\r\ncontent-type: image/png\r\n\r\n\x89\xff\r\n--X--",
        value: r#"{"body_base64":true,"uri_args":{},"uri":"/kafka","body_args":{"p":{"filename":"p.png","content_type":"image/png","bytes":2},"t":"1"},"body":"LS1YDQpjb250ZW50LWRpc3Bvc2l0aW9uOiBmb3JtLWRhdGE7IG5hbWU9dA0KDQoxDQotLVgNCmNvbnRlbnQtZGlzcG9zaXRpb246IGZvcm0tZGF0YTsgbmFtZT1wOyBmaWxlbmFtZT1wLnBuZw0KY29udGVudC10eXBlOiBpbWFnZS9wbmcNCg0Kif8NCi0tWC0t","method":"POST"}"#,
        ..POST
    },
    Row {
        content_type: Some("application/xml"), body: b"\x00\xff\x80", ..BASE64
    },
];

const BASE64: Row = Row {
    value: r#"{"body_base64":true,"uri_args":{},"uri":"/kafka","body_args":{},"body":"AP+A","method":"POST"}"#,
    ..POST
};

const fn text_row(content_type: &'static str) -> Row {
    Row {
        content_type: Some(content_type),
        body: "<ü>\t1 & 2</ü>".as_bytes(),
        value: r#"{"uri_args":{},"uri":"/kafka","body_args":{},"body":"<ü>\t1 & 2</ü>","method":"POST"}"#,
        ..POST
    }
}

impl Row {
    fn request(&self) -> Request {
        let request = match self.method {
            "GET" => Request::get(self.target),
            _ => Request::post(self.target, self.body),
        };
        match self.content_type {
            Some(content_type) => request.header("content-type", content_type),
            None => request,
        }
    }
}

async fn every_row_is_written_byte_for_byte(version: KafkaVersion) -> anyhow::Result<()> {
    let all = json!({
        "producer_async": false, "forward_method": true, "forward_uri": true, "forward_body": true,
    });
    let gateway = Gateway::start_on(version, 1, &[("rows", all)]).await?;
    let mut replies = Vec::new();
    for row in &ROWS {
        replies.push((row, gateway.send("rows", row.request()).await?));
        replies.push((row, gateway.send("rows", row.request().http2()).await?));
    }
    let records = gateway.records("rows").await?;
    assert_eq!(records.len(), replies.len());
    for (row, reply) in &replies {
        assert_eq!((reply.status, &*reply.text()), (200, r#"{"message":"message sent"}"#));
        let record = record_of(&records, reply, "rows")?;
        let value = String::from_utf8(record.value.clone().context("no value")?)?;
        assert_eq!(value, row.value);
        assert_eq!((&record.key, record.headers.len()), (&None, 0));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_on_kafka_4_3() -> anyhow::Result<()> {
    every_row_is_written_byte_for_byte(KafkaVersion::V4_3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_on_kafka_3_9() -> anyhow::Result<()> {
    every_row_is_written_byte_for_byte(KafkaVersion::V3_9).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_flag_alone_gives_its_own_fields() -> anyhow::Result<()> {
    let flag = |name: &str| {
        let mut fields = json!({ "producer_async": false, "forward_body": false });
        fields[name] = json!(true);
        fields
    };
    let names = ["forward_method", "forward_uri", "forward_headers", "forward_body"];
    let listeners: Vec<_> = names.iter().map(|name| (*name, flag(name))).collect();
    let gateway = Gateway::start(&listeners).await?;
    let value = async |name: &str| -> anyhow::Result<String> {
        let request = Request::post("/a?b=c", "x")
            .header("content-type", "text/plain")
            .header("host", "shop.example")
            .header("x-request-id", "1")
            .header("X-Tag", "one")
            .header("x-tag", "two, three")
            .header("x-latin", b"Z\xfcrich");
        let reply = gateway.send(name, request).await?;
        let records = gateway.records(name).await?;
        let record = record_of(&records, &reply, name)?;
        Ok(String::from_utf8(record.value.clone().context("no value")?)?)
    };
    assert_eq!(value("forward_method").await?, r#"{"method":"POST"}"#);
    assert_eq!(value("forward_uri").await?, r#"{"uri_args":{"b":"c"},"uri":"/a?b=c"}"#);
    assert_eq!(value("forward_body").await?, r#"{"body_args":{},"body":"x"}"#);
    assert_eq!(
        value("forward_headers").await?,
        concat!(
            r#"{"headers":{"content-length":"1","content-type":"text/plain","#,
            r#""host":"shop.example","x-forwarded-proto":"http","x-latin":"Zürich","#,
            r#""x-request-id":"1","x-tag":["one","two, three"]}}"#
        )
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_parse_is_refused_and_not_written() -> anyhow::Result<()> {
    let fields = json!({ "producer_async": false, "forward_uri": true });
    let gateway = Gateway::start(&[("refused", fields)]).await?;
    let multipart = "multipart/form-data; boundary=XX";
    for (target, content_type, body, error) in [
        (
            "/",
            "application/json",
            "{\"a\":",
            "the body is not valid JSON: EOF while parsing a value at line 1 column 5",
        ),
        ("/", "text/plain, text/html", "x", "the header `content-type` has different values"),
        (
            "/",
            multipart,
            "--XX\r\nno end",
            "the body is not valid multipart/form-data: the part at byte 6 has no end",
        ),
        (
            "/",
            "multipart/form-data",
            "--XX--",
            "the body is not valid multipart/form-data: content-type has no boundary of 1 to 70 bytes",
        ),
    ] {
        let request = Request::post(target, body).header("content-type", content_type);
        let reply = gateway.send("refused", request).await?;
        assert_eq!((reply.status, reply.header("kafka-error")), (400, Some("bad_request")));
        assert_eq!(reply.json()?, json!({ "message": "Bad Request", "error": error }));
    }
    grpc_is_refused_as_its_clients_know_it(&gateway).await?;
    assert_eq!(gateway.records("refused").await?, []);
    Ok(())
}

/// Envoy makes HTTP 200 of each reply to what it takes for gRPC, a refusal too.
async fn grpc_is_refused_as_its_clients_know_it(gateway: &Gateway) -> anyhow::Result<()> {
    for (kind, status) in [
        ("application/grpc", 200),
        ("application/grpc+proto", 200),
        ("application/grpc; charset=utf-8", 415),
        ("application/grpc,application/grpc", 415),
        ("Application/gRPC", 415),
    ] {
        let call = Request::post("/s/m", b"\0\0\0\0\x01x".to_vec()).header("content-type", kind);
        for call in [call.clone(), call.http2()] {
            let reply = gateway.send("refused", call).await?;
            assert_eq!((reply.status, reply.header("grpc-status")), (status, Some("12")), "{kind}");
            assert_eq!(reply.header("kafka-error"), Some("grpc_unsupported"));
            assert_eq!(reply.header("grpc-message"), Some("gRPC requests are not supported"));
            // Envoy takes it away from a reply without a body that it does not make itself.
            let kind = (status == 200).then_some("application/grpc");
            assert_eq!(reply.header("content-type"), kind);
        }
    }
    Ok(())
}
