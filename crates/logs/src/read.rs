//! Reading what is kept, and going on from there: each reader has a place of its own in the buffer, so
//! that none is waited for and nothing is kept for any.

use serde_json::value::RawValue;

use crate::{
    Buffer,
    filter::Filter,
    model::{Gap, Lines},
    ring::LineId,
};

/// Lines that are looked at with one hold of the buffer.
const PIECE: usize = 1_024;

/// A place in the buffer: all up to a line was read.
pub(crate) struct Place {
    buffer: Buffer,
    upto: u64,
    /// What a reader of another start of the server last saw.
    foreign: Option<LineId>,
}

/// What a reader comes by.
pub(crate) enum Found<'a> {
    Line { json: &'a str, boot: &'a str, number: u64 },
    Gap(Gap),
}

impl Place {
    /// Behind this line, or behind the newest.
    pub(crate) fn new(buffer: Buffer, after: Option<LineId>) -> Self {
        let newest = buffer.next_id() - 1;
        match after {
            None => Self { buffer, upto: newest, foreign: None },
            Some(id) => match buffer.number(&id) {
                // One that is not there yet: somebody made it up.
                Some(number) => Self { buffer, upto: number.min(newest), foreign: None },
                None => Self { buffer, upto: 0, foreign: Some(id) },
            },
        }
    }

    pub(crate) fn id(&self) -> LineId {
        self.buffer.id(self.upto)
    }

    /// Shows what is behind this place, up to a thousand lines of it or until `show` has enough. Is
    /// there no more?
    pub(crate) fn go_on(
        &mut self,
        filter: &Filter,
        mut show: impl FnMut(Found<'_>) -> bool,
    ) -> bool {
        let piece = self.buffer.after(self.upto, PIECE);
        let boot = self.id().boot;
        for line in &piece.lines {
            self.tell_gap(line.id - 1, &mut show);
            self.upto = line.id;
            if filter.takes(line)
                && !show(Found::Line { json: &line.json, boot: &boot, number: line.id })
            {
                return false;
            }
        }
        self.tell_gap(piece.upto, &mut show);
        piece.lines.len() < PIECE
    }

    /// All up to `upto` that was not read yet is gone.
    fn tell_gap(&mut self, upto: u64, show: &mut impl FnMut(Found<'_>) -> bool) {
        let foreign = self.foreign.take();
        if upto <= self.upto && foreign.is_none() {
            return;
        }
        let missed = foreign.is_none().then(|| upto.saturating_sub(self.upto));
        let from = foreign.unwrap_or_else(|| self.buffer.id(self.upto + 1));
        show(Found::Gap(Gap {
            missed,
            from: from.to_string(),
            to: self.buffer.id(upto).to_string(),
        }));
        self.upto = self.upto.max(upto);
    }
}

/// The newest lines, or those behind one.
pub(crate) fn lines(buffer: &Buffer, filter: &Filter) -> Lines {
    let (all, buffer_size, buffer_capacity) = buffer.all();
    let (mut jsons, mut gap): (Vec<String>, Option<Gap>) = (Vec::new(), None);
    let last_id = match &filter.after {
        Some(after) => {
            let mut place = Place::new(buffer.clone(), Some(after.clone()));
            loop {
                let mut full = false;
                let end = place.go_on(filter, |found| {
                    match found {
                        Found::Line { json, .. } => jsons.push(json.to_owned()),
                        Found::Gap(new) => match &mut gap {
                            None => gap = Some(new),
                            Some(gap) => {
                                gap.missed = gap.missed.zip(new.missed).map(|(one, two)| one + two);
                                gap.to = new.to;
                            }
                        },
                    }
                    full = jsons.len() >= filter.limit;
                    !full
                });
                if end || full {
                    break place.id();
                }
            }
        }
        None => {
            let newest = all.iter().rev().filter(|line| filter.takes(line)).take(filter.limit);
            jsons.extend(newest.map(|line| line.json.to_string()));
            jsons.reverse();
            buffer.id(all.last().map_or_else(|| buffer.next_id() - 1, |line| line.id))
        }
    };
    let entries = jsons.into_iter().filter_map(|json| RawValue::from_string(json).ok()).collect();
    Lines { entries, last_id: last_id.to_string(), gap, buffer_size, buffer_capacity }
}
