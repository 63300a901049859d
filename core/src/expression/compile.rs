//! From the text of an expression to its nodes; what it names must exist.

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, MapExpr, SelectExpr,
    operators as op,
};
use cel::parser::PrattParser;

use super::chain;
use super::functions::{Function, Style};
use super::node::{Field, Fold, Literal, Loop, Node, Part, Uses, Variable};
use super::pattern::Pattern;
use super::value::TYPES;
use crate::limits::{
    EXPRESSION_BYTES_MAX, EXPRESSION_CHAIN_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_NODES_MAX,
    READER_EXPRESSION_BYTES_MAX, READER_EXPRESSION_NODES_MAX,
};

/// What an expression can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    Request,
    Record,
}

/// How large an expression may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    bytes: usize,
    nodes: usize,
    loops: bool,
}

impl Bounds {
    /// Of an operator's.
    pub(super) const CONFIGURED: Self =
        Self { bytes: EXPRESSION_BYTES_MAX, nodes: EXPRESSION_NODES_MAX, loops: true };
    /// Of anybody's who reads.
    pub(super) const OF_READER: Self = Self {
        bytes: READER_EXPRESSION_BYTES_MAX,
        nodes: READER_EXPRESSION_NODES_MAX,
        loops: false,
    };
}

/// Compiles an expression.
///
/// # Errors
/// What is wrong, with its line and column.
pub(super) fn compile(source: &str, names: Names, bounds: Bounds) -> Result<(Node, Uses), String> {
    if source.len() > bounds.bytes {
        return Err(format!("is longer than {} bytes", bounds.bytes));
    }
    if chain::longest(source) > EXPRESSION_CHAIN_MAX {
        return Err(format!("has more than {EXPRESSION_CHAIN_MAX} operators in a row"));
    }
    let parser = PrattParser::new()
        .max_recursion_depth(EXPRESSION_DEPTH_MAX)
        .max_expression_node_count(bounds.nodes);
    let expression = parser.parse(source).map_err(|errors| match errors.errors.first() {
        Some(first) => format!("line {}, column {}: {}", first.pos.0, first.pos.1, first.msg),
        None => "is not an expression".to_owned(),
    })?;
    let (locals, uses) = (Vec::new(), Uses::default());
    let mut compiler = Compiler { source, names, bounds, locals, depth: 0, count: 0, uses };
    let node = compiler.node(&expression)?;
    Ok((node, compiler.uses))
}

struct Compiler<'s> {
    source: &'s str,
    names: Names,
    bounds: Bounds,
    /// Variables of the loops around a node, innermost last.
    locals: Vec<String>,
    depth: u16,
    /// Of nodes. The parser counts them, too, but not what stands in a list.
    count: usize,
    uses: Uses,
}

impl Compiler<'_> {
    fn node(&mut self, expression: &IdedExpr) -> Result<Node, String> {
        if self.depth == EXPRESSION_DEPTH_MAX {
            return Err(format!("is nested deeper than {EXPRESSION_DEPTH_MAX}"));
        }
        self.depth += 1;
        self.count += 1;
        if self.count > self.bounds.nodes {
            return Err(format!("has more than {} parts", self.bounds.nodes));
        }
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
        let bare = name.strip_prefix('.').unwrap_or(name);
        if let Some(variable) = self.variable(bare) {
            return Ok(Node::Variable(variable));
        }
        if let Some(known) = TYPES.iter().find(|known| **known == bare) {
            return Ok(Node::Literal(Literal::Type(known)));
        }
        let known = match self.names {
            Names::Request => vec!["request", "source", "message"],
            Names::Record => Part::ALL.iter().map(|part| part.name()).collect(),
        };
        let known = known.join("`, `");
        let (first, last) = known.rsplit_once(", ").unwrap_or_default();
        Err(self.fault(name, &format!("`{name}` is unknown: there are `{first} and {last}`")))
    }

    fn variable(&mut self, name: &str) -> Option<Variable> {
        let variable = match (self.names, name) {
            (Names::Request, "request") => Variable::Request(None),
            (Names::Request, "source") => Variable::Source,
            (Names::Request, "message") => Variable::Message,
            (Names::Request, _) => return None,
            (Names::Record, _) => {
                Variable::Record(*Part::ALL.iter().find(|part| part.name() == name)?)
            }
        };
        self.uses.variables = true;
        match variable {
            Variable::Source => self.uses.source = true,
            Variable::Message => self.uses.message = true,
            Variable::Record(Part::Headers) => self.uses.headers = true,
            Variable::Record(Part::Client) => self.uses.client = true,
            _ => {}
        }
        Some(variable)
    }

    fn select(&mut self, select: &SelectExpr) -> Result<Node, String> {
        let known = Field::ALL.iter().find(|field| field.name() == select.field);
        let node = match (self.node(&select.operand)?, known) {
            (Node::Variable(Variable::Request(None)), Some(field)) => {
                Node::Variable(Variable::Request(Some(*field)))
            }
            (Node::Variable(Variable::Request(None)), None) => {
                let names: Vec<_> = Field::ALL.iter().map(|field| field.name()).collect();
                let reason =
                    format!("`request` has no `{}`, but {}", select.field, names.join(", "));
                return Err(self.fault(&select.field, &reason));
            }
            (Node::Variable(Variable::Source), _) if select.field == "address" => {
                Node::Variable(Variable::Address)
            }
            (Node::Variable(Variable::Source), _) => {
                let reason = format!("`source` has no `{}`, but address", select.field);
                return Err(self.fault(&select.field, &reason));
            }
            (operand, _) if select.test => Node::Has(Box::new(operand), select.field.clone()),
            (operand, _) => return Ok(Node::Select(Box::new(operand), select.field.clone())),
        };
        let is_there = matches!(node, Node::Variable(_)) && select.test;
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
        if !self.bounds.loops {
            return Err("a reader's filter has no loops: all, exists, map and the like".to_owned());
        }
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
