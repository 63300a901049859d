//! Samples whose body is parsed: JSON, forms, multipart.

use serde_json::json;

use super::{Sample, post};

const JSON: &[u8] = br#"{"order":17,"lines":[{"sku":"a-1","count":2}],"note":null}"#;

const FORM: &[u8] = b"item=tea&item=caf%C3%A9&note=two+words&gift";

const MULTIPART: &[u8] = b"--cut\r\n\
    content-disposition: form-data; name=\"title\"\r\n\r\n\
    Spring offer\r\n\
    --cut\r\n\
    content-disposition: form-data; name=\"list\"; filename=\"list.txt\"\r\n\
    content-type: text/plain\r\n\r\n\
    one\ntwo\r\n\
    --cut--\r\n";

pub(super) fn samples() -> Vec<Sample> {
    vec![
        post(
            "POST of JSON",
            Some("application/json"),
            JSON,
            json!({"order": 17, "lines": [{"sku": "a-1", "count": 2}], "note": null}),
        ),
        post(
            "POST of a form",
            Some("application/x-www-form-urlencoded"),
            FORM,
            json!({"item": ["tea", "café"], "note": "two words", "gift": true}),
        ),
        post(
            "POST of a multipart form",
            Some("multipart/form-data; boundary=cut"),
            MULTIPART,
            json!({"title": "Spring offer", "list": "one\ntwo"}),
        ),
    ]
}
