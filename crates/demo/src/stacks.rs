//! The file of issues, read.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

const FILE: &str = include_str!("../data/issues.txt");

pub(crate) struct Family {
    pub(crate) slug: &'static str,
    pub(crate) name: &'static str,
    pub(crate) platform: &'static str,
    base: Vec<Frame>,
    pub(crate) issues: Vec<Sort>,
}

/// An issue, before it has any event.
#[derive(Clone)]
pub(crate) struct Sort {
    pub(crate) level: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) value: &'static str,
    pub(crate) transaction: &'static str,
    /// Days ago.
    pub(crate) first: f64,
    pub(crate) last: f64,
    pub(crate) events: u32,
    pub(crate) users: u32,
    pub(crate) fate: &'static str,
    frames: Vec<Frame>,
}

#[derive(Clone)]
struct Frame {
    file: &'static str,
    module: &'static str,
    function: &'static str,
    line: u32,
    in_app: bool,
    before: Vec<&'static str>,
    context: Option<&'static str>,
    after: Vec<&'static str>,
}

impl Sort {
    /// The file that it comes from.
    pub(crate) fn file(&self) -> &'static str {
        self.frames.iter().rfind(|frame| frame.in_app).map_or("", |frame| frame.file)
    }
}

impl Family {
    /// As SDKs send it: the outermost call first.
    pub(crate) fn stack(&self, sort: &Sort) -> Value {
        let frames = self.base.iter().chain(&sort.frames).map(Frame::json);
        json!({"frames": frames.collect::<Vec<_>>()})
    }
}

impl Frame {
    fn json(&self) -> Value {
        let mut frame = json!({"filename": self.file, "abs_path": format!("/srv/app/{}", self.file),
            "module": self.module, "function": self.function, "lineno": self.line, "in_app": self.in_app});
        if let (Some(context), Some(members)) = (self.context, frame.as_object_mut()) {
            members.insert("pre_context".to_owned(), json!(self.before));
            members.insert("context_line".to_owned(), json!(context));
            members.insert("post_context".to_owned(), json!(self.after));
        }
        frame
    }
}

pub(crate) fn read() -> anyhow::Result<Vec<Family>> {
    let mut families: Vec<Family> = Vec::new();
    for (number, line) in FILE.lines().enumerate() {
        let done = take(&mut families, line);
        done.with_context(|| format!("line {} of the issues", number + 1))?;
    }
    Ok(families)
}

fn take(families: &mut Vec<Family>, line: &'static str) -> anyhow::Result<()> {
    let Some(mark) = line.chars().next() else { return Ok(()) };
    let rest = line.get(1..).unwrap_or_default();
    let cells = || rest.split(" | ").map(str::trim).collect::<Vec<_>>();
    if mark == '=' {
        let [slug, name, platform] = cells()[..] else { bail!("three cells") };
        families.push(Family { slug, name, platform, base: Vec::new(), issues: Vec::new() });
        return Ok(());
    }
    let Some(family) = families.last_mut() else { return Ok(()) };
    match mark {
        '#' => {
            let [level, kind, value, transaction, first, last, events, users, fate] = cells()[..]
            else {
                bail!("nine cells")
            };
            family.issues.push(Sort {
                level,
                kind,
                value,
                transaction,
                first: first.parse()?,
                last: last.parse()?,
                events: events.parse()?,
                users: users.parse()?,
                fate,
                frames: Vec::new(),
            });
        }
        '@' | '-' => {
            let [file, module, function, line] = cells()[..] else { bail!("four cells") };
            let frame = Frame {
                file,
                module,
                function,
                line: line.parse()?,
                in_app: mark == '@',
                before: Vec::new(),
                context: None,
                after: Vec::new(),
            };
            family.issues.last_mut().map_or(&mut family.base, |sort| &mut sort.frames).push(frame);
        }
        '>' | ' ' => {
            let frame = family.issues.last_mut().and_then(|sort| sort.frames.last_mut());
            let frame = frame.context("a line of no frame")?;
            let code = rest.strip_prefix(' ').unwrap_or(rest);
            match (mark, frame.context) {
                ('>', _) => frame.context = Some(code),
                (_, None) => frame.before.push(code),
                (_, Some(_)) => frame.after.push(code),
            }
        }
        _ => {}
    }
    Ok(())
}
