//! Expressions against the language's own implementation, against hostile requests, and against
//! what each costs.

use cel::objects::Key as CelKey;
use proptest::prelude::*;

use super::compile::{Bounds, Names};
use super::cost::Budget;
use super::evaluate::{Evaluation, Variables};
use super::value::{Key, Value};
use super::*;
use crate::format::{MessageFormat, encode, kong};
use crate::limits;
use crate::request::Request;

fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Request {
    let mut request = Request {
        method: method.into(),
        target: target.into(),
        scheme: b"http".to_vec(),
        source_address: b"10.0.0.9:4711".to_vec(),
        body: body.to_vec(),
        ..Request::default()
    };
    for (name, value) in headers {
        request.headers.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    }
    request
}

fn order() -> Request {
    let headers = [
        ("host", "shop.example"),
        ("content-type", "application/json"),
        ("x-request-id", "r-1"),
        ("x-tag", "one"),
        ("x-tag", "two"),
    ];
    request(
        "POST",
        "/orders/17?dry&tag=a&tag=b",
        &headers,
        br#"{"id":7,"lines":[{"n":2},{"n":3}]}"#,
    )
}

/// The value of an expression over a request, as JSON, and what it cost.
fn evaluate(source: &str, request: &Request) -> (Result<String, String>, usize) {
    let expression = match Expression::compile("message_expression", source) {
        Ok(expression) => expression,
        Err(error) => return (Err(error.to_string()), 0),
    };
    let settings = crate::config::Settings::parse(
        br#"{"bridge":"b","topic":"t","forward_uri":true,"forward_method":true}"#,
    );
    let kong = crate::format::kong::encode(request, settings.unwrap().forward).ok();
    let input = Input::new(request, kong.as_deref(), 951_782_400_001);
    let mut evaluation = Evaluation::new(Variables::Request(&input));
    let mut text = Vec::new();
    let value = evaluation.value(expression.node());
    let written = value.and_then(|value| json::write(&value, &mut text, &mut evaluation.budget));
    let result = written.map(|()| String::from_utf8(text).unwrap()).map_err(|f| f.to_string());
    (result, evaluation.budget.spent())
}

fn value(source: &str) -> String {
    evaluate(source, &order()).0.unwrap_or_else(|error| panic!("{source}: {error}"))
}

fn fault(source: &str) -> String {
    evaluate(source, &order()).0.unwrap_err()
}

#[test]
fn every_field_of_the_request_can_be_seen() {
    for (source, expected) in [
        ("request.method", r#""POST""#),
        ("request.path", r#""/orders/17""#),
        ("request.uri", r#""/orders/17?dry&tag=a&tag=b""#),
        ("request.host", r#""shop.example""#),
        ("request.scheme", r#""http""#),
        ("request.query", r#"{"dry":true,"tag":["a","b"]}"#),
        ("request.headers['x-tag']", r#"["one","two"]"#),
        ("request.headers.host", r#""shop.example""#),
        ("size(request.body)", "34"),
        ("base64.encode(request.body_bytes).size()", "48"),
        ("request.content_type", r#""application/json""#),
        ("request.id", r#""r-1""#),
        ("request.time", r#""2000-02-29T00:00:00.001Z""#),
        ("source.address", r#""10.0.0.9:4711""#),
        ("message.method", r#""POST""#),
        ("message.body_args.lines.map(l, l.n)", "[2,3]"),
        ("request['method'] + source['address']", r#""POST10.0.0.9:4711""#),
        ("has(request.body) && has(message.body) && !has(message.headers)", "true"),
    ] {
        assert_eq!(value(source), expected, "{source}");
    }
}

#[test]
fn the_language_is_cel() {
    for (source, expected) in [
        ("1 + 2 * 3 == 7 ? 'yes' : 'no'", r#""yes""#),
        ("[1, 2, 3].filter(x, x > 1).map(x, string(x)).join('-')", r#""2-3""#),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4,6]"),
        ("{'a': 1, 'b': [true, null, 1.5, b'\\xff']}", r#"{"a":1,"b":[true,null,1.5,"/w=="]}"#),
        ("{'z': 1, 'a': 2}.exists_one(k, k == 'a')", "true"),
        ("1 / 0 == 1 || true", "true"),
        ("[1, 'a'].exists(x, x > 0)", "true"),
        ("'a,b,,c'.split(',')", r#"["a","b","","c"]"#),
        ("'Zürich'.substring(1, 3) + '!'.replace('!', '?')", r#""ür?""#),
        ("'Zürich'.indexOf('r') + size('Zürich')", "8"),
        ("type(1u) == uint && 1u in [1.0]", "true"),
        ("9007199254740993 > 9007199254740992.0", "true"),
        ("int('12') + int(3.9)", "15"),
        ("string(bytes('ü'))", r#""ü""#),
        ("' A b '.trim().lowerAscii().upperAscii()", r#""A B""#),
        ("double('1e400')", r#""Infinity""#),
        ("request.path.matches('^/orders/[0-9]+$') && !matches('ab', '^b')", "true"),
        ("request.id.matches('^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')", "false"),
        ("[1, 'ab'].exists(x, x.matches('b'))", "true"),
        ("{1: 'a'}[1.0] + {true: 'b'}[true]", r#""ab""#),
    ] {
        assert_eq!(value(source), expected, "{source}");
    }
}

#[test]
fn what_is_wrong_with_an_expression_is_told_with_its_place() {
    let many = format!("[{}1]", "1,".repeat(2047));
    for (source, expected) in [
        ("1 +", "line 1, column 4: Syntax error: mismatched input '<EOF>'"),
        ("request.method ==\n  mesage.x", "line 2, column 3: `mesage` is unknown"),
        ("request.methd", "line 1, column 9: `request` has no `methd`, but body"),
        ("source.ip", "line 1, column 8: `source` has no `ip`, but address"),
        ("'a'.matches('(')", "line 1, column 5: `matches`: "),
        ("'a'.matches('(a{99}){99}')", "line 1, column 5: `matches`: "),
        ("'a'.matches(request.path)", "line 1, column 5: the pattern of `matches` must be"),
        ("'a'.matches()", "line 1, column 5: there is no function `matches`"),
        ("now()", "line 1, column 1: there is no function `now`"),
        ("'a'.contains()", "line 1, column 5: `contains` cannot be called with these arguments"),
        ("X{a: 1}", "line 1, column 1: messages cannot be built"),
        ("'a'.?b", "line 1, column 4: unsupported syntax"),
        ("[1].map(x + 1, x)", "line 1"),
        ("", "line 1, column 1: Syntax error"),
        (many.as_str(), "is longer than 4096 bytes"),
    ] {
        let error = fault(source);
        let shown = error.strip_prefix("message_expression: ").unwrap();
        assert!(shown.starts_with(expected), "{source}: {shown}");
    }
}

#[test]
fn what_does_not_fit_the_request_is_told() {
    for (source, expected) in [
        ("message.body_args.nothing", "no such key: `nothing`"),
        ("request.method + 1", "`+` is not for string and int"),
        ("9223372036854775807 + 1", "`+` overflows"),
        ("1 / int(message.body_args.id - 7)", "division by zero"),
        ("[1][1]", "the index is out of bounds"),
        ("{'a': 1, 'a': 2}", "a key is there twice"),
        ("int('x')", "`int`: the string does not fit"),
        ("string(b'\\xff')", "`string`: the bytes are not valid UTF-8"),
        ("request.method ? 1 : 2", "?:: a bool is expected, not string"),
        ("'abc'.substring(2, 1)", "`substring` is out of range"),
        ("request.method.n", "string has no field `n`"),
    ] {
        assert_eq!(fault(source), expected, "{source}");
    }
    let binary = request("POST", "/?a=%ff", &[], b"\xff");
    let shown = |source| evaluate(source, &binary).0.unwrap_err();
    assert!(shown("request.body").contains("request.body_bytes"));
    assert_eq!(evaluate("request.query", &binary).0.unwrap(), r#"{"a":"ÿ"}"#);
    assert!(evaluate("has(request.body)", &binary).0.is_ok());
    assert_eq!(evaluate("'body' in request", &binary).0.unwrap(), "false");
}

/// Expressions that try to take much, over requests that help them.
const GREEDY: [&str; 16] = [
    "[request.body].map(a,a+a).map(a,a+a).map(a,a+a).map(a,a+a).map(a,a+a).map(a,a+a).map(a,a+a)",
    "request.body.replace('a', request.body)",
    "request.body.replace('', request.body)",
    "request.body.split('').map(a, request.body.split(''))",
    "[request.body.split('')].map(a, a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a)",
    "request.body.split('').all(a, request.body.split('').all(b, request.body.contains(a + b)))",
    "request.body.split('').exists(a, request.body.indexOf('b') > 0)",
    "request.body.split('').exists(a, a.b > 0)",
    "request.body.split('').map(a, request.headers)",
    "request.body.split('').map(a, request.query)",
    "request.body.split('').map(a, message)",
    "[0].map(a,[a,a]).map(a,[a,a]).map(a,[a,a]).map(a,[a,a]).map(a,[a,a]).map(a,[a,a]).map(a,[a,a])\
     .map(a,[a,a]).map(a,[a,a]).map(a,[a,a]).map(a,[a,a]).map(a,[a,a]).map(a,[a,a]).map(a,[a,a])\
     .map(a,[a,a]).map(a,[a,a]).map(a,[a,a]).map(a,[a,a]).map(a,[a,a]).map(a,[a,a]).map(a,[a,a])",
    "request.body.split('').map(a, request.body.split('').join(request.body)).join(request.body)",
    "request.body.split('').map(a, {a + request.body: a}) == []",
    "request.body.split('').map(a, base64.encode(bytes(request.body + a)))",
    "message.body_args == message.body_args && [message] == [message] && message in [message.a]",
];

#[test]
fn no_expression_takes_more_than_its_budget() {
    let texts = ["a".repeat(200_000), "ab".repeat(1_000_000), "ü".repeat(1000), "[]".into()];
    let nested = format!("[{}1]", "[[[1]]],".repeat(24_000));
    let flat = format!("[{}1]", "1,".repeat(90_000));
    let objects = format!("{{{}\"a\":1}}", r#""a":1,"#.repeat(40_000));
    let query = "&aaaa=1".repeat(8000);
    let mut stopped = std::collections::BTreeSet::new();
    for (kind, body) in texts
        .iter()
        .map(|text| ("text/plain", text))
        .chain([&nested, &flat, &objects].map(|text| ("application/json", text)))
    {
        let request = request(
            "POST",
            &format!("/?{query}"),
            &[("content-type", kind), ("x-bomb", &"b".repeat(60_000))],
            body.as_bytes(),
        );
        for source in GREEDY {
            let (result, cost) = evaluate(source, &request);
            assert!(cost <= limits::EXPRESSION_COST_MAX);
            if let Err(error) = result {
                assert!(error.len() < 200, "{source}: {error}");
                stopped.extend(error.starts_with("costs more than").then_some(source));
            }
        }
    }
    assert_eq!(stopped, GREEDY.into_iter().collect(), "each meets a request that is too much");
}

/// A long text that one step names is as long to read each time.
#[test]
fn what_is_read_again_is_paid_for_again() {
    let digits = request("POST", "/", &[], "0".repeat(1_000_000).as_bytes());
    let target = Request { target: vec![0xff; 60_000], ..Request::default() };
    let twenty = "[0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9]";
    for (source, request, bytes) in [
        ("[request.body].all(s, TWENTY.exists(i, int(s) > i))", &digits, 1_000_000),
        ("[request.body].all(s, TWENTY.exists(i, uint(s) > i))", &digits, 1_000_000),
        ("[request.body].all(s, TWENTY.exists(i, double(s) > i))", &digits, 1_000_000),
        ("TWENTY.exists(i, request.uri == '')", &target, 60_000),
        ("TWENTY.exists(i, request.path == '')", &target, 60_000),
    ] {
        let (result, cost) = evaluate(&source.replace("TWENTY", twenty), request);
        let exhausted = result.is_err_and(|error| error.starts_with("costs more than"));
        assert!(exhausted || cost > 20 * bytes / 128, "{source}: {cost}");
    }
}

#[test]
fn one_value_in_many_headers_is_paid_for_each_time() {
    let headers = "{'h': [request.body + 'a'].map(s, [1,2,3,4,5,6,7,8,9,0].map(i, s))[0]}";
    let settings = format!(
        r#"{{"bridge":"b","topic":"t","message_format":"body",
            "record_headers_expression":"{headers}"}}"#
    );
    let settings = crate::config::Settings::parse(settings.as_bytes()).unwrap();
    let status = |bytes: usize| {
        let request = Request { body: vec![b'x'; bytes], ..Request::default() };
        crate::capture::capture(&settings, &request, 7).map_err(|reply| reply.status).err()
    };
    assert_eq!((status(1000), status(2_000_000)), (None, Some(400)));
}

#[test]
fn a_body_of_too_many_values_or_levels_is_refused_only_where_it_is_looked_at() {
    let deep = ["[".repeat(100_000), "]".repeat(100_000)].concat();
    let many = format!("[{}1]", "1,".repeat(limits::EXPRESSION_VALUES_MAX));
    let json = [("content-type", "application/json")];
    let shown =
        |body: &str, source| evaluate(source, &request("POST", "/", &json, body.as_bytes())).0;
    assert_eq!(shown(&deep, "size(request.body)").unwrap(), "200000");
    assert_eq!(shown(&deep, "size(message)").unwrap_err(), "`message`: recursion limit exceeded");
    assert_eq!(shown(&many, "size(request.body) > 1").unwrap(), "true");
    assert!(shown(&many, "size(message)").unwrap_err().ends_with("more than 100000 values"));
    assert!(shown("[1e400]", "message.body_args").unwrap_err().contains("number out of range"));
}

/// A VM's stack has 1 MiB, and these frames are those of a build without optimisations.
#[test]
fn the_deepest_expressions_fit_a_small_stack() {
    let nest =
        |open: &str, close: &str, n: usize| [open.repeat(n), "1".into(), close.repeat(n)].concat();
    let mut sources = Vec::new();
    for n in [20, 40, 47, 48, 100, 500, 2000] {
        for (open, close) in [
            ("(", ")"),
            ("[", "]"),
            ("{1:", "}"),
            ("!", ""),
            ("-", ""),
            ("- ", ""),
            ("1+", ""),
            ("", "+1"),
            ("", ".a"),
            ("", "[0]"),
            ("true?1:", ""),
            ("true&&", ""),
            ("[1].map(x,", ")"),
            ("size(", ")"),
            ("", ".size()"),
            ("[", ""),
            ("a.", ""),
            ("f(", ""),
            ("", ")"),
            ("'", ""),
            ("[1].map(x,[", "])"),
            ("1?", ""),
            ("has(a.", ")"),
            ("{", ""),
            ("b", ""),
            ("\u{fc}", ""),
        ] {
            sources.push(nest(open, close, n));
        }
        for (before, link, after) in [
            ("has(a", ".a", ")"),
            ("size(a", ".a", ")"),
            ("size(1", "+1", ")"),
            ("size(a", "[0]", ")"),
            ("size(a", ".b()", ")"),
            ("[a].map(x, a", ".a", ")"),
            ("size(", "true?1:", "1)"),
            ("size(", "!-", "1)"),
            ("size(a", " in a", ")"),
            ("' \n size(a", ".a", ")"),
        ] {
            sources.push([before, &link.repeat(n), after].concat());
        }
    }
    let run = move || sources.iter().filter(|source| evaluate(source, &order()).0.is_ok()).count();
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap();
    assert!(thread.join().unwrap() > 20);
}

/// A random expression of a type; `x` is an int around it. Few of them fail.
fn typed(kind: &'static str, depth: u32) -> BoxedStrategy<String> {
    let leaves = match kind {
        "int" => vec!["1", "0", "-3", "x", "4611686018427387904", "int('12')", "int(2u)"],
        "double" => vec!["1.5", "-0.0", "1e30", "2.0", "double('3')", "9007199254740993.0"],
        "bool" => vec!["true", "false", "1 == 1.0", "2u > -1", "x == 1"],
        "text" => vec!["'a'", "'ab,c'", "''", "'é\\u00df'", "r'\\n'", "' A '", "string(x)"],
        _ => vec!["[]", "[x]", "[1, 2, 3]", "[x, 1]"],
    };
    let leaf = prop::sample::select(leaves).prop_map(str::to_owned);
    if depth == 0 {
        return leaf.boxed();
    }
    let shapes = match kind {
        "int" => vec![
            "(int + int)",
            "(int - int)",
            "(int * int)",
            "(int / int)",
            "(int % int)",
            "-(int)",
            "size(text)",
            "list.size()",
            "text.indexOf(text)",
            "text.lastIndexOf(text)",
            "int(double)",
            "(bool ? int : int)",
            "list[int]",
            "[int, int][1]",
            "{1: int}[1.0]",
        ],
        "double" => vec![
            "(double + double)",
            "(double * double)",
            "(double / 2.0)",
            "double(int)",
            "-(double)",
            "(bool ? double : double)",
        ],
        "bool" => vec![
            "(int < int)",
            "(int >= double)",
            "(double != int)",
            "(text <= text)",
            "(text == text)",
            "(list == list)",
            "(int in list)",
            "!(bool)",
            "(bool && bool)",
            "(bool || bool)",
            "(int / 0 == 1 || bool)",
            "list.all(x, bool)",
            "list.exists(x, bool)",
            "list.exists_one(x, bool)",
            "text.contains(text)",
            "text.startsWith(text)",
            "text.endsWith(text)",
            "(type(int) == type(double))",
            "has({'a': int}.b)",
            "(text in {'a': 1})",
            "({'a': int} == {'a': int})",
        ],
        "text" => vec![
            "(text + text)",
            "string(int)",
            "string(bool)",
            "text.substring(int)",
            "text.substring(0, int)",
            "text.replace(text, text)",
            "text.lowerAscii()",
            "text.upperAscii()",
            "text.trim()",
            "list.map(x, text).join(text)",
            "string(bytes(text))",
            "(bool ? text : text)",
            "{'a': text}.a",
            "{'b': text}['b']",
            "text.split(text)[0]",
        ],
        _ => vec![
            "(list + list)",
            "list.map(x, int)",
            "list.filter(x, bool)",
            "list.map(x, bool, int)",
            "[int, int]",
            "(bool ? list : list)",
            "text.split(text).map(t, size(t))",
            "[{1: x, int: 2}.size()]",
        ],
    };
    let shape = prop::sample::select(shapes).prop_flat_map(move |shape| fill(shape, depth - 1));
    prop_oneof![1 => leaf, 4 => shape].boxed()
}

/// A shape with each word that names a type replaced by an expression of it.
fn fill(shape: &'static str, depth: u32) -> BoxedStrategy<String> {
    let kinds = ["int", "double", "bool", "text", "list"];
    let mut pieces: Vec<BoxedStrategy<String>> = Vec::new();
    for piece in shape.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let rest = piece[word.len()..].to_owned();
        match kinds.iter().find(|kind| **kind == word && !rest.starts_with('(')) {
            Some(kind) => {
                pieces.push(typed(kind, depth).prop_map(move |s| s + &rest).boxed());
            }
            None => pieces.push(Just(piece.to_owned()).boxed()),
        }
    }
    pieces.prop_map(|pieces| pieces.concat()).boxed()
}

fn expression() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["int", "double", "bool", "text", "list"])
        .prop_flat_map(|kind| typed(kind, 3))
}

/// Ours and the language's own, side by side.
fn same(ours: &Value<'_>, theirs: &cel::Value) -> bool {
    match (ours, theirs) {
        (Value::Null, cel::Value::Null) => true,
        (Value::Bool(a), cel::Value::Bool(b)) => a == b,
        (Value::Int(a), cel::Value::Int(b)) => a == b,
        (Value::UInt(a), cel::Value::UInt(b)) => a == b,
        (Value::Double(a), cel::Value::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
        (Value::String(a), cel::Value::String(b)) => **a == ***b,
        (Value::Bytes(a), cel::Value::Bytes(b)) => **a == b[..],
        (Value::List(a), cel::Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a, b))
        }
        (Value::Map(a), cel::Value::Map(b)) => {
            let key = |key: &Key<'_>| match key {
                Key::Bool(bool) => CelKey::Bool(*bool),
                Key::Int(int) => CelKey::Int(*int),
                Key::UInt(uint) => CelKey::Uint(*uint),
                Key::String(text) => CelKey::from(&**text),
            };
            a.entries().len() == b.map.len()
                && a.entries().iter().all(|(k, v)| b.map.get(&key(k)).is_some_and(|b| same(v, b)))
        }
        (Value::Type(_), _) => true,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// The crate's own evaluation has no bound, but it says what is right.
    #[test]
    fn random_expressions_have_the_language_s_value(source in expression()) {
        let whole = format!("[1, 2].map(x, {source})");
        let Ok(node) = compile::compile(&whole, Names::Request, Bounds::CONFIGURED) else { return Ok(()) };
        let request = order();
        let input = Input::new(&request, None, 0);
        let ours = Evaluation::new(Variables::Request(&input)).value(&node.0);
        let mut env = cel::Env::stdlib();
        env.add_extension(cel::extensions::strings).unwrap();
        let context = cel::Context::with_env(std::sync::Arc::new(env));
        let parsed = cel::parser::PrattParser::new().parse(&whole).unwrap();
        let theirs = cel::Value::resolve(&parsed, &context);
        match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => {
                prop_assert!(same(ours, theirs), "{ours:?} {theirs:?}");
            }
            (Err(_), Err(_)) => {}
            _ => prop_assert!(false, "{ours:?} {theirs:?}"),
        }
    }

    #[test]
    fn arbitrary_text_is_compiled_or_refused(source in "\\PC{0,60}") {
        let _ = compile::compile(&source, Names::Request, Bounds::CONFIGURED);
    }

    #[test]
    fn shuffled_tokens_are_compiled_or_refused(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "request", "message", ".", "body", "(", ")", "[", "]", "{", "}", ":", "?", "'a'", "1",
            "+", "-", "!", "&&", "||", "map", "has", "x", ",", "in", "b'\\x", "r\"", "'''", "\\", "0x",
            "1u", "1e", ".5", "`", "//", "\n", "all", "null", "==", "\u{1f600}",
        ]), 0..24)
    ) {
        let source = tokens.concat();
        let _ = evaluate(&source, &order());
    }

    #[test]
    fn arbitrary_requests_have_a_value_or_an_error(
        target in prop::collection::vec(any::<u8>(), 0..40),
        header in prop::collection::vec(any::<u8>(), 0..20),
        body in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut request = order();
        request.target = target;
        request.body = body;
        request.headers.push((header.clone(), header));
        for source in [
            "request", "message", "request.query", "request.headers", "request.body",
            "request.path.split('/')", "source", "request.body_bytes",
        ] {
            let _ = evaluate(source, &request);
        }
    }
}

#[test]
fn a_full_budget_ends_and_nothing_is_kept_of_it() {
    let mut budget = Budget::full();
    assert!(budget.pay_bytes(usize::MAX).is_err());
    assert!(budget.pay(limits::EXPRESSION_COST_MAX).is_ok());
    assert!(budget.pay(1).is_err());
}

/// A record of every expression's result.
#[test]
fn results_become_parts_of_the_record() {
    let parse = |fields: serde_json::Value| {
        let mut config = serde_json::json!({"bridge": "b", "topic": "t"});
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        crate::config::Settings::parse(config.to_string().as_bytes()).unwrap()
    };
    let settings = parse(serde_json::json!({
        "message_format": "body",
        "topic_expression": "'t'",
        "key_expression": "message.body_args.id",
        "partition_expression": "size(message.body_args.lines)",
        "record_headers_expression":
            "{'tag': request.headers['x-tag'], 'none': null, 'raw': b'\\xff'}",
    }));
    let request = order();
    let kong = kong::encode(&request, settings.forward).unwrap();
    let format = settings.message_format;
    let message = encode(format, &settings.expressions, &request, Some(&kong), 0).unwrap();
    assert_eq!(message.topic.as_deref(), Some("t"));
    assert_eq!((message.key.as_deref(), message.partition), (Some(&b"7"[..]), Some(2)));
    let headers: Vec<_> =
        message.headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
    let expected: [(&[u8], Option<&[u8]>); 5] = [
        (b"content-type", Some(b"application/json")),
        (b"tag", Some(b"one")),
        (b"tag", Some(b"two")),
        (b"none", None),
        (b"raw", Some(b"\xff")),
    ];
    assert_eq!(headers, expected);

    let result = |field: &str, source: &str| {
        let mut fields = serde_json::json!({});
        fields[field] = source.into();
        let settings = parse(fields);
        let format = settings.message_format;
        let message = encode(format, &settings.expressions, &request, Some(&kong), 0);
        message
            .map(|m| (m.key.map(|k| k.into_owned()), m.value.map(|v| v.into_owned()), m.partition))
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        parse(serde_json::json!({"message_expression": "1"})).message_format,
        MessageFormat::Expression
    );
    assert_eq!(result("message_expression", "null").unwrap().1, None);
    assert_eq!(result("message_expression", "b'\\x00'").unwrap().1, Some(vec![0]));
    assert_eq!(result("message_expression", "1.5").unwrap().1, Some(b"1.5".to_vec()));
    assert_eq!(result("key_expression", "null").unwrap().0, None);
    assert_eq!(result("key_expression", "'é'").unwrap().0, Some("é".into()));
    assert_eq!(result("partition_expression", "null").unwrap().2, None);
    for (field, source, expected) in [
        ("key_expression", "1.5", "must be a string, bytes, an int or null, is double"),
        ("topic_expression", "1", "must be a string, is int"),
        ("partition_expression", "-1", "must be 0 to 2147483647"),
        ("partition_expression", "2147483648", "must be 0 to 2147483647"),
        ("partition_expression", "'1'", "must be an int or null, is string"),
        ("record_headers_expression", "[1]", "must be a map or null, is list"),
        ("record_headers_expression", "{1: 'a'}", "a header's name must be a string"),
        (
            "record_headers_expression",
            "{'a': [[b'']]}",
            "must be a string, bytes, a list of them or null, is list",
        ),
    ] {
        assert_eq!(result(field, source), Err(format!("{field}: {expected}")), "{source}");
    }
}

/// The text of the page for users.
const PAGE: &str = include_str!("../../../docs/expressions.md");

#[test]
fn every_example_of_the_page_is_true() {
    let blocks: Vec<_> = PAGE.split("```").skip(1).step_by(2).collect();
    let (head, body) = blocks[0].strip_prefix("http\n").unwrap().split_once("\n\n").unwrap();
    let mut lines = head.lines();
    let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
    let headers: Vec<_> = lines.map(|line| line.split_once(": ").unwrap()).collect();
    let request = request(method, target, &headers, body.trim_end().as_bytes());
    let examples = blocks[1..].chunks_exact(2);
    assert!(examples.len() > 5 && examples.remainder().is_empty());
    for pair in examples {
        let source = pair[0].strip_prefix("cel\n").unwrap();
        let expected = pair[1].strip_prefix("json\n").unwrap().trim_end();
        assert_eq!(evaluate(source, &request).0.as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn the_page_tells_the_limits_and_the_functions() {
    for number in [
        format!("{} bytes", limits::EXPRESSION_BYTES_MAX),
        format!("{} levels", limits::EXPRESSION_DEPTH_MAX),
        format!("{} nodes", limits::EXPRESSION_NODES_MAX),
        format!("{},000 steps", limits::EXPRESSION_COST_MAX / 1000),
        format!("{},000 JSON values", limits::EXPRESSION_VALUES_MAX / 1000),
    ] {
        let page = PAGE.replace('\n', " ");
        assert!(page.contains(&number), "{number}");
    }
    for name in functions::names().filter(|name| !name.contains(['_', '@'])) {
        assert!(PAGE.contains(&format!("`{name}`")), "{name}");
    }
}
