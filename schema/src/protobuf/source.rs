//! The text of a schema, with what it imports, as descriptors.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost_reflect::FileDescriptor;
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::{DescriptorProto, FileDescriptorProto};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::options;
use crate::limits::DEPTH_MAX;
use crate::{Document, SchemaError};

/// Files that a schema may import: imports are followed by recursion.
const REFERENCES_MAX: usize = 256;
/// Bytes of a package with the names of messages in each other: each name that is declared there has
/// them in front.
const SCOPE_BYTES_MAX: usize = 512;
/// Characters of the compiler's sentence that an error shows.
const SHOWN_CHARS_MAX: usize = 200;
/// What the schema's own file is called: nothing imports it.
const NAME: &str = "kafka-upstream/schema.proto";

/// What Confluent's registry knows without a reference.
const CONFLUENT: [(&str, &str); 2] = [
    (
        "confluent/meta.proto",
        r#"syntax = "proto3";
        package confluent;
        import "google/protobuf/descriptor.proto";
        message Meta {
          string doc = 1;
          map<string, string> params = 2;
          repeated string tags = 3;
        }
        extend google.protobuf.FileOptions { Meta file_meta = 1088; }
        extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
        extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
        extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
        extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }"#,
    ),
    (
        "confluent/type/decimal.proto",
        r#"syntax = "proto3";
        package confluent.type;
        message Decimal {
          bytes value = 1;
          uint32 precision = 2;
          int32 scale = 3;
        }"#,
    ),
];

/// Compiles a schema.
pub(super) fn compile(document: &Document) -> Result<FileDescriptor, SchemaError> {
    if document.references.len() > REFERENCES_MAX {
        return Err(SchemaError(format!("it has more than {REFERENCES_MAX} references")));
    }
    let references = document.references.iter();
    let references = references.map(|reference| (reference.name.as_str(), reference.text.as_str()));
    let mut files = HashMap::new();
    for (name, text) in CONFLUENT.into_iter().chain(references).chain([(NAME, &*document.text)]) {
        let file = read(name, text).map_err(|why| {
            SchemaError(if name == NAME { why } else { format!("{name}: {why}") })
        })?;
        files.insert(name.to_owned(), file);
    }
    let mut resolver = ChainFileResolver::new();
    // What has a JSON form of its own is Google's, whatever a registry calls so.
    resolver.add(GoogleFileResolver::new());
    resolver.add(Files(files));
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.open_file(NAME).map_err(|error| SchemaError(shown(&error)))?;
    let file = compiler.descriptor_pool().get_file_by_name(NAME);
    file.ok_or_else(|| SchemaError("its compiler lost it".to_owned()))
}

/// The schema and its references, by the paths of their imports.
struct Files(HashMap<String, FileDescriptorProto>);

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let file = self.0.get(name).ok_or_else(|| protox::Error::file_not_found(name))?;
        let mut file = FileDescriptorProto { public_dependency: Vec::new(), ..file.clone() };
        // The compiler does not find all that public imports import, and takes exponential time for it.
        let mut known: HashSet<_> = file.dependency.iter().cloned().collect();
        let mut at = 0;
        while let Some(import) = file.dependency.get(at) {
            at += 1;
            let Some(import) = self.0.get(import) else { continue };
            let public = import.public_dependency.iter();
            let public = public.filter_map(|at| import.dependency.get(usize::try_from(*at).ok()?));
            file.dependency.extend(public.filter(|name| known.insert((*name).clone())).cloned());
        }
        Ok(File::from_file_descriptor_proto(file))
    }
}

/// A file, without where in its text what stands: each error is looked up there from the front.
fn read(name: &str, text: &str) -> Result<FileDescriptorProto, String> {
    check_levels(text.as_bytes())?;
    let mut file = match described(text) {
        Some(file) => file,
        None => File::from_source(name, text)
            .map_err(|error| shown(&error))?
            .file_descriptor_proto()
            .clone(),
    };
    if !matches!(file.syntax.as_deref(), None | Some("proto2" | "proto3")) {
        return Err("its syntax is neither proto2 nor proto3".to_owned());
    }
    if longest_scope(&file.message_type, file.package().len()) > SCOPE_BYTES_MAX {
        return Err(format!("it has messages with names of more than {SCOPE_BYTES_MAX} bytes"));
    }
    options::prune(&mut file);
    Ok(FileDescriptorProto { name: Some(name.to_owned()), source_code_info: None, ..file })
}

fn longest_scope(messages: &[DescriptorProto], scope: usize) -> usize {
    let inside = messages
        .iter()
        .map(|message| longest_scope(&message.nested_type, scope + 1 + message.name().len()));
    inside.max().unwrap_or(scope)
}

/// A file as Confluent's clients for Python register it, and Apicurio gives it: its descriptor in base64,
/// in which no text has its braces.
fn described(text: &str) -> Option<FileDescriptorProto> {
    let bytes = BASE64_STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty())?;
    FileDescriptorProto::decode(&*bytes).ok()
}

/// The compiler's sentence, which names what it stumbled over.
fn shown(error: &protox::Error) -> String {
    let sentence = error.to_string();
    let sentence = sentence.replace(&format!("{NAME}:"), "").replace(['\n', '\r'], " ");
    sentence.trim().chars().take(SHOWN_CHARS_MAX).collect()
}

/// The compiler parses by recursion, so what is nested too deep must not reach it.
fn check_levels(text: &[u8]) -> Result<(), String> {
    let mut rest = text;
    let mut levels = 0_usize;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = match (byte, behind) {
            (b'"' | b'\'', _) => behind_string(byte, behind)?,
            (b'#', _) | (b'/', [b'/', ..]) => behind_line(behind),
            (b'/', [b'*', behind @ ..]) => behind_comment(behind)?,
            _ => behind,
        };
        match byte {
            b'{' | b'[' | b'<' | b'(' => levels += 1,
            b'}' | b']' | b'>' | b')' => levels = levels.saturating_sub(1),
            _ => {}
        }
        if levels > DEPTH_MAX {
            return Err(format!("it has more than {DEPTH_MAX} levels"));
        }
    }
    Ok(())
}

fn behind_string(quote: u8, text: &[u8]) -> Result<&[u8], String> {
    let mut rest = text;
    loop {
        rest = match rest {
            [] | [b'\n', ..] | [b'\\'] | [b'\\', b'\n', ..] => {
                return Err("a string has no end".to_owned());
            }
            [b'\\', _, behind @ ..] => behind,
            [byte, behind @ ..] if *byte == quote => return Ok(behind),
            [_, behind @ ..] => behind,
        };
    }
}

fn behind_line(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|&byte| byte == b'\n').unwrap_or(text.len());
    text.get(end..).unwrap_or_default()
}

fn behind_comment(text: &[u8]) -> Result<&[u8], String> {
    let mut rest = text;
    loop {
        rest = match rest {
            [b'*', b'/', behind @ ..] => return Ok(behind),
            [] => return Err("a comment has no end".to_owned()),
            [b'/', b'*', ..] => return Err("a comment is in a comment".to_owned()),
            [_, behind @ ..] => behind,
        };
    }
}
