//! Exchanges of RFC 7677 and of Kafka's extension, and servers that lie.

use super::*;

const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

fn scram(hash: Hash, user: &str, password: &str, nonce: &str, is_token: bool) -> Scram {
    let proof = Proof { hash, user: user.into(), password: Secret::new(password), is_token };
    Scram::new(proof, nonce.into(), Arc::default())
}

/// What the client proves with, and what the server must answer.
fn run(mut scram: Scram, first: &str, proof: &str, signature: &str) {
    let Reply::Send(message) = scram.on_answer(first.as_bytes()).unwrap() else { panic!("done") };
    let message = String::from_utf8(message).unwrap();
    let nonce = first.split(',').next().unwrap();
    assert_eq!(message, format!("c=biws,{nonce},p={proof}"));
    assert_eq!(scram.on_answer(format!("v={signature}").as_bytes()), Ok(Reply::Done));
    assert_eq!(scram.on_answer(b""), Err(Flaw::Unasked));
}

#[test]
fn the_exchange_of_rfc_7677() {
    let mut scram = scram(Hash::Sha256, "user", "pencil", NONCE, false);
    assert_eq!(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    run(scram, FIRST, proof, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

/// Computed by Python's hashlib.
#[test]
fn the_same_exchange_with_sha_512() {
    let scram = scram(Hash::Sha512, "user", "pencil", NONCE, false);
    let proof =
        "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==";
    run(
        scram,
        FIRST,
        proof,
        "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
    );
}

/// Computed by Python's hashlib.
#[test]
fn a_delegation_token_is_named_in_the_message_and_in_what_is_signed() {
    let mut scram = scram(Hash::Sha256, "tokenid", "aG1hYw==", "abc", true);
    assert_eq!(scram.first(), b"n,,n=tokenid,r=abc,tokenauth=true");
    let proof = "66KM4COG00r8SQjxcH6oMTJO6bTfXl1oqyDvb+eIoXA=";
    run(scram, "r=abcdef,s=c2FsdA==,i=4096", proof, "XnONmFZ3BQActRlgOnCG4FeKAuZQSjzDt8oWtV1FPH8=");
}

/// Computed by Python's hashlib. SASLprep would make another password of the Angstrom sign and
/// drop the soft hyphen.
#[test]
fn passwords_are_hashed_as_they_are() {
    let scram = scram(Hash::Sha256, "user", "p\u{e4}ss\u{212b}\u{ad}", "abc", false);
    let proof = "rW5oE0X5vPh+i6SW9CXY/b+UjDPBwXhf6y0R5OR4TVc=";
    run(scram, "r=abcdef,s=c2FsdA==,i=4096", proof, "gFEXfKP3fYJ2rklwQ4vEHY8oIR9GDs0QdbygH7/IWzc=");
}

#[test]
fn a_user_name_cannot_add_attributes() {
    let mut scram = scram(Hash::Sha256, "a=b,c", "p", "abc", false);
    assert_eq!(scram.first(), b"n,,n=a=3Db=2Cc,r=abc");
}

#[test]
fn what_a_server_says_first_is_checked() {
    for (first, flaw) in [
        ("r=abc,s=c2FsdA==,i=4096", Flaw::Nonce),
        ("r=abd123,s=c2FsdA==,i=4096", Flaw::Nonce),
        ("r=abcdef,s=c2FsdA==,i=4095", Flaw::Iterations(4095)),
        ("r=abcdef,s=c2FsdA==,i=1000001", Flaw::Iterations(1_000_001)),
        ("r=abcdef,s=c2FsdA==,i=100000000", Flaw::Iterations(100_000_000)),
        ("r=abcdef,s=c2FsdA==,i=99999999999999999999999", Flaw::Unreadable),
        ("r=abcdef,s=c2FsdA==,i=-1", Flaw::Unreadable),
        ("r=abcdef,s=,i=4096", Flaw::Unreadable),
        ("r=abcdef,s=?,i=4096", Flaw::Unreadable),
        ("r=abcdef,i=4096", Flaw::Unreadable),
        ("m=must,r=abcdef,s=c2FsdA==,i=4096", Flaw::Unreadable),
        ("e=unknown-user", Flaw::Error("unknown-user".into())),
        ("", Flaw::TooSoon),
    ] {
        let mut scram = scram(Hash::Sha256, "user", "p", "abc", false);
        assert_eq!(scram.on_answer(first.as_bytes()), Err(flaw), "{first}");
    }
    let mut scram = scram(Hash::Sha256, "user", "p", "abc", false);
    assert_eq!(scram.on_answer(&[0xff, 0xfe]), Err(Flaw::Unreadable));
}

#[test]
fn a_server_must_prove_that_it_knows_the_password() {
    let other = BASE64_STANDARD.encode([7; 32]);
    for (last, flaw) in [
        (format!("v={other}"), Flaw::Signature),
        ("v=".into(), Flaw::Signature),
        ("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G==".into(), Flaw::Unreadable),
        ("e=invalid-proof".into(), Flaw::Error("invalid-proof".into())),
        ("x=1".into(), Flaw::Unreadable),
        (String::new(), Flaw::TooSoon),
    ] {
        let mut scram = scram(Hash::Sha256, "user", "pencil", NONCE, false);
        scram.on_answer(FIRST.as_bytes()).unwrap();
        assert_eq!(scram.on_answer(last.as_bytes()), Err(flaw), "{last}");
    }
}

#[test]
fn a_salted_password_is_computed_once_for_the_same_salt() {
    let proof =
        Proof { hash: Hash::Sha256, user: "u".into(), password: Secret::new("p"), is_token: false };
    let salted = Salted::default();
    let one = salted.of(&proof, b"salt", 4096);
    // Another would take minutes if it were computed.
    salted.0.lock().as_mut().unwrap().iterations = ITERATIONS_MOST;
    assert_eq!(salted.of(&proof, b"salt", ITERATIONS_MOST), one);
    assert_ne!(salted.of(&proof, b"other", 4096), one);
    let other = Proof { password: Secret::new("q"), ..proof };
    assert_ne!(salted.of(&other, b"salt", 4096), one);
}
