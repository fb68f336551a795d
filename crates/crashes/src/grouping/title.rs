//! What an issue is called.

use super::{Rules, family::Family, fingerprint, function, main_exception, stack};
use crate::event::{Event, Exception, Frame};

const LONGEST: usize = 160;
const LONGEST_CULPRIT: usize = 200;
const LONGEST_VALUE: usize = 1_000;

pub(super) struct Title {
    pub(super) title: String,
    pub(super) culprit: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) value: Option<String>,
}

pub(super) fn of(event: &Event, rules: &Rules) -> Title {
    let exception = main_exception(event);
    let frame = exception
        .map(|exception| exception.frames.as_slice())
        .filter(|frames| !frames.is_empty())
        .or_else(|| super::thread(event).map(|thread| thread.frames.as_slice()))
        .and_then(|frames| culprit_frame(frames, event));
    let culprit = frame
        .and_then(|frame| described(frame, event))
        .or_else(|| event.transaction.clone())
        .map(|text| cut(&text, LONGEST_CULPRIT));
    let title = match rules.title(event) {
        Some(title) => fingerprint::filled(title, event, "default"),
        None => match exception {
            Some(exception) => of_exception(exception, frame, event),
            None => event
                .message
                .as_ref()
                .map(|message| first_line(&message.formatted).to_owned())
                .filter(|title| !title.is_empty())
                .or_else(|| frame.and_then(|frame| frame.function.clone()))
                .or_else(|| event.transaction.clone())
                .unwrap_or_else(|| "Without a message".to_owned()),
        },
    };
    Title {
        title: cut(title.trim(), LONGEST),
        culprit,
        kind: exception.and_then(|exception| exception.kind.clone()),
        value: exception
            .and_then(|exception| exception.value.as_deref())
            .map(|value| cut(value, LONGEST_VALUE)),
    }
}

fn of_exception(exception: &Exception, frame: Option<&Frame>, event: &Event) -> String {
    let value = exception.value.as_deref().map(first_line).unwrap_or_default();
    // What the SDK made up has no type that says anything; without one its value is a message that was captured.
    if exception.mechanism.synthetic
        && (exception.kind.is_some() || value.is_empty())
        && let Some(function) = frame.and_then(|frame| frame.function.as_deref())
    {
        let family = Family::of(None, event.platform.as_deref());
        let name = function::key(function, family).unwrap_or_else(|| function.to_owned());
        let kind = exception.kind.as_deref().unwrap_or("Crash");
        return format!("{kind} in {name}");
    }
    match (exception.kind.as_deref(), value) {
        (Some(kind), "") => kind.to_owned(),
        (Some(kind), value) => format!("{kind}: {value}"),
        (None, "") => "Error without a type".to_owned(),
        (None, value) => value.to_owned(),
    }
}

/// The innermost of the application, else the innermost.
fn culprit_frame<'a>(frames: &'a [Frame], event: &Event) -> Option<&'a Frame> {
    let family = |frame: &Frame| Family::of(frame.platform.as_deref(), event.platform.as_deref());
    frames
        .iter()
        .rev()
        .find(|frame| stack::effective(frame, family(frame)))
        .or_else(|| frames.last())
}

fn described(frame: &Frame, event: &Event) -> Option<String> {
    let family = Family::of(frame.platform.as_deref(), event.platform.as_deref());
    let function = frame.function.as_deref().map(|name| match family {
        Family::Native => function::key(name, family).unwrap_or_else(|| name.to_owned()),
        _ => name.to_owned(),
    });
    let place = frame.module.as_deref().or(frame.filename.as_deref()).or(frame.package.as_deref());
    match (function, place) {
        (Some(function), Some(place)) if function.starts_with(place) => Some(function),
        (Some(function), Some(place)) => Some(format!("{function} in {place}")),
        (Some(function), None) => Some(function),
        (None, place) => place.map(ToOwned::to_owned),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}

fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most);
    format!("{}…", text.get(..end).unwrap_or_default().trim_end())
}
