//! What says nothing of how messages are written is left out: the compiler would follow an option
//! `(o).a.a.a` by recursion, and compare each reserved number with each field.

use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    UninterpretedOption,
};

/// Leaves out services, reserved numbers, and all options but `packed` and those of messages and enums that Protobuf has itself.
pub(super) fn prune(file: &mut FileDescriptorProto) {
    file.service.clear();
    file.options = None;
    file.message_type.iter_mut().for_each(message);
    file.enum_type.iter_mut().for_each(enumeration);
    file.extension.iter_mut().for_each(field);
}

fn message(of: &mut DescriptorProto) {
    of.options.iter_mut().for_each(|options| options.uninterpreted_option.retain(is_built_in));
    of.reserved_range.clear();
    of.oneof_decl.iter_mut().for_each(|oneof| oneof.options = None);
    of.extension_range.iter_mut().for_each(|range| range.options = None);
    of.field.iter_mut().chain(&mut of.extension).for_each(field);
    of.enum_type.iter_mut().for_each(enumeration);
    of.nested_type.iter_mut().for_each(message);
}

fn field(of: &mut FieldDescriptorProto) {
    let Some(options) = &mut of.options else { return };
    let given = std::mem::take(&mut options.uninterpreted_option);
    let is_packed = |option: &&UninterpretedOption| matches!(&*option.name, [part] if !part.is_extension && part.name_part == "packed");
    // The compiler asks for it before it reads the options of a text.
    if let Some(packed) = given.iter().find(is_packed) {
        options.packed = Some(packed.identifier_value() == "true");
    }
}

fn enumeration(of: &mut EnumDescriptorProto) {
    of.options.iter_mut().for_each(|options| options.uninterpreted_option.retain(is_built_in));
    of.value.iter_mut().for_each(|value| value.options = None);
}

fn is_built_in(option: &UninterpretedOption) -> bool {
    matches!(&*option.name, [part] if !part.is_extension)
}
