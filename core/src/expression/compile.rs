//! From the text of an expression to its nodes; what it names must exist.

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, MapExpr, SelectExpr,
    operators as op,
};
use cel::parser::PrattParser;

use super::Uses;
use super::chain;
use super::functions::{Function, Style};
use super::node::{Field, Fold, Literal, Loop, Node};
use super::pattern::Pattern;
use super::value::TYPES;
use crate::limits::{
    EXPRESSION_BYTES_MAX, EXPRESSION_CHAIN_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_NODES_MAX,
};

/// Compiles an expression.
///
/// # Errors
/// What is wrong, with its line and column.
pub(super) fn compile(source: &str) -> Result<(Node, Uses), String> {
    if source.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("is longer than {EXPRESSION_BYTES_MAX} bytes"));
    }
    if chain::longest(source) > EXPRESSION_CHAIN_MAX {
        return Err(format!("has more than {EXPRESSION_CHAIN_MAX} operators in a row"));
    }
    let parser = PrattParser::new()
        .max_recursion_depth(EXPRESSION_DEPTH_MAX)
        .max_expression_node_count(EXPRESSION_NODES_MAX);
    let expression = parser.parse(source).map_err(|errors| match errors.errors.first() {
        Some(first) => format!("line {}, column {}: {}", first.pos.0, first.pos.1, first.msg),
        None => "is not an expression".to_owned(),
    })?;
    let mut compiler = Compiler { source, locals: Vec::new(), depth: 0, uses: Uses::default() };
    let node = compiler.node(&expression)?;
    Ok((node, compiler.uses))
}

struct Compiler<'s> {
    source: &'s str,
    /// Variables of the loops around a node, innermost last.
    locals: Vec<String>,
    depth: u16,
    uses: Uses,
}

impl Compiler<'_> {
    fn node(&mut self, expression: &IdedExpr) -> Result<Node, String> {
        if self.depth == EXPRESSION_DEPTH_MAX {
            return Err(format!("is nested deeper than {EXPRESSION_DEPTH_MAX}"));
        }
        self.depth += 1;
        let node = match &expression.expr {
            Expr::Literal(value) => Ok(Node::Literal(literal(value))),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.nodes(&list.elements).map(Node::List),
            Expr::Map(map) => self.map(map),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(message) => {
                Err(self.fault(&message.type_name, "messages cannot be built, maps can"))
            }
            Expr::Unspecified => Err("is not an expression".to_owned()),
        };
        self.depth -= 1;
        node
    }

    fn nodes(&mut self, expressions: &[IdedExpr]) -> Result<Vec<Node>, String> {
        expressions.iter().map(|expression| self.node(expression)).collect()
    }

    fn name(&mut self, name: &str) -> Result<Node, String> {
        if let Some(at) = self.locals.iter().rev().position(|local| local == name) {
            return Ok(Node::Local(at));
        }
        match name.strip_prefix('.').unwrap_or(name) {
            "request" => Ok(Node::Request(None)),
            "source" => {
                self.uses.source = true;
                Ok(Node::Source)
            }
            "message" => {
                self.uses.message = true;
                Ok(Node::Message)
            }
            other => match TYPES.iter().find(|known| **known == other) {
                Some(known) => Ok(Node::Literal(Literal::Type(known))),
                None => Err(self.fault(
                    name,
                    &format!("`{name}` is unknown: there are `request`, `source` and `message`"),
                )),
            },
        }
    }

    fn select(&mut self, select: &SelectExpr) -> Result<Node, String> {
        let known = Field::ALL.iter().find(|field| field.name() == select.field);
        let node = match (self.node(&select.operand)?, known) {
            (Node::Request(None), Some(field)) => Node::Request(Some(*field)),
            (Node::Request(None), None) => {
                let names: Vec<_> = Field::ALL.iter().map(|field| field.name()).collect();
                let reason =
                    format!("`request` has no `{}`, but {}", select.field, names.join(", "));
                return Err(self.fault(&select.field, &reason));
            }
            (Node::Source, _) if select.field == "address" => Node::Address,
            (Node::Source, _) => {
                let reason = format!("`source` has no `{}`, but address", select.field);
                return Err(self.fault(&select.field, &reason));
            }
            (operand, _) if select.test => Node::Has(Box::new(operand), select.field.clone()),
            (operand, _) => return Ok(Node::Select(Box::new(operand), select.field.clone())),
        };
        let is_there = matches!(node, Node::Request(_) | Node::Address) && select.test;
        Ok(if is_there { Node::Literal(Literal::Bool(true)) } else { node })
    }

    fn call(&mut self, call: &CallExpr) -> Result<Node, String> {
        if let ([left, right], op::LOGICAL_AND) = (&*call.args, &*call.func_name) {
            return Ok(Node::And(Box::new((self.node(left)?, self.node(right)?))));
        }
        if let ([left, right], op::LOGICAL_OR) = (&*call.args, &*call.func_name) {
            return Ok(Node::Or(Box::new((self.node(left)?, self.node(right)?))));
        }
        if let ([condition, yes, no], op::CONDITIONAL) = (&*call.args, &*call.func_name) {
            let branches = (self.node(condition)?, self.node(yes)?, self.node(no)?);
            return Ok(Node::Conditional(Box::new(branches)));
        }
        let arguments: Vec<_> = call.target.as_deref().into_iter().chain(&call.args).collect();
        if let ("matches", [text, pattern]) = (&*call.func_name, &arguments[..]) {
            let Expr::Literal(LiteralValue::String(pattern)) = &pattern.expr else {
                let reason = "the pattern of `matches` must be a string that is written down";
                return Err(self.fault("matches", reason));
            };
            let pattern = Pattern::new(pattern.inner()).map_err(|e| self.fault("matches", &e))?;
            return Ok(Node::Matches(Box::new(self.node(text)?), pattern));
        }
        // `base64.encode(x)` is parsed as a call of `encode` on `base64`.
        let (name, target) = match call.target.as_deref().map(|target| (target, &target.expr)) {
            Some((_, Expr::Ident(space))) if space == "base64" => {
                (format!("{space}.{}", call.func_name), None)
            }
            Some((target, _)) => (call.func_name.clone(), Some(target)),
            None => (call.func_name.clone(), None),
        };
        let style = if target.is_some() { Style::Method } else { Style::Global };
        let count = call.args.len() + usize::from(target.is_some());
        let function = Function::find(&name, style, count)
            .map_err(|reason| self.fault(name.rsplit('.').next().unwrap_or_default(), &reason))?;
        let mut arguments = Vec::with_capacity(count);
        if let Some(target) = target {
            arguments.push(self.node(target)?);
        }
        arguments.extend(self.nodes(&call.args)?);
        Ok(Node::Call(function, arguments))
    }

    fn map(&mut self, map: &MapExpr) -> Result<Node, String> {
        let mut entries = Vec::with_capacity(map.entries.len());
        for entry in &map.entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else {
                return Err("has a field where a map's entry is expected".to_owned());
            };
            entries.push((self.node(&entry.key)?, self.node(&entry.value)?));
        }
        Ok(Node::Map(entries))
    }

    fn comprehension(&mut self, loops: &ComprehensionExpr) -> Result<Node, String> {
        let range = self.node(&loops.iter_range)?;
        self.locals.push(loops.iter_var.clone());
        let step = self.step(loops);
        self.locals.pop();
        Ok(Node::Loop(Box::new(Loop { range, step: step? })))
    }

    /// Recognises the step that each of CEL's macros expands to.
    fn step(&mut self, loops: &ComprehensionExpr) -> Result<Fold, String> {
        let unknown = || "has an unknown macro".to_owned();
        let arguments = |expression| operator(expression).ok_or_else(unknown);
        Ok(match arguments(&loops.loop_step)? {
            (op::LOGICAL_AND, [_, test]) => Fold::All(self.node(test)?),
            (op::LOGICAL_OR, [_, test]) => Fold::Exists(self.node(test)?),
            (op::ADD, [_, added]) => Fold::Collect { guard: None, item: self.item(added)? },
            (op::CONDITIONAL, [guard, added, _]) => match arguments(added)? {
                (op::ADD, [_, IdedExpr { expr: Expr::Literal(_), .. }]) => {
                    Fold::ExistsOne(self.node(guard)?)
                }
                (op::ADD, [_, added]) => {
                    Fold::Collect { guard: Some(self.node(guard)?), item: self.item(added)? }
                }
                _ => return Err(unknown()),
            },
            _ => return Err(unknown()),
        })
    }

    fn item(&mut self, added: &IdedExpr) -> Result<Node, String> {
        match &added.expr {
            Expr::List(list) => match &*list.elements {
                [item] => self.node(item),
                _ => Err("has an unknown macro".to_owned()),
            },
            _ => Err("has an unknown macro".to_owned()),
        }
    }

    /// A fault at the place where a word is written.
    fn fault(&self, word: &str, reason: &str) -> String {
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let whole = |at: &usize| {
            let (before, after) = self.source.split_at_checked(*at).unwrap_or_default();
            !before.ends_with(inside) && !after.get(word.len()..).unwrap_or("").starts_with(inside)
        };
        let place = self.source.match_indices(word).map(|(at, _)| at).find(whole);
        let Some((before, _)) = place.and_then(|at| self.source.split_at_checked(at)) else {
            return reason.to_owned();
        };
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("line {line}, column {column}: {reason}")
    }
}

/// A global call's name and arguments.
fn operator(expression: &IdedExpr) -> Option<(&str, &[IdedExpr])> {
    match &expression.expr {
        Expr::Call(call) if call.target.is_none() => Some((&call.func_name, &call.args)),
        _ => None,
    }
}

fn literal(value: &LiteralValue) -> Literal {
    match value {
        LiteralValue::Null => Literal::Null,
        LiteralValue::Boolean(bool) => Literal::Bool(*bool.inner()),
        LiteralValue::Int(int) => Literal::Int(*int.inner()),
        LiteralValue::UInt(uint) => Literal::UInt(*uint.inner()),
        LiteralValue::Double(double) => Literal::Double(*double.inner()),
        LiteralValue::String(text) => Literal::Text(text.inner().to_owned()),
        LiteralValue::Bytes(bytes) => Literal::Bytes(bytes.inner().to_owned()),
    }
}
