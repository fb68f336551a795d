//! Splitting server-sent events into lines while they pass, with a bound on memory.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>

use bytes::{Bytes, BytesMut};
use memchr::memchr;

/// A line longer than this is not looked at; it passes on all the same.
const MAX_LINE: usize = 16 << 20;

/// Gives the payload of each `data:` line, whatever the chunking. CR LF and LF end a line.
#[derive(Default)]
pub(crate) struct DataLines {
    /// The beginning of a line whose end has not come yet.
    partial: BytesMut,
    overlong: bool,
    lost: bool,
}

impl DataLines {
    /// Calls `each` with every payload that `chunk` completes.
    pub(crate) fn feed(&mut self, chunk: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = chunk;
        while let Some(at) = memchr(b'\n', rest) {
            let (line, tail) = rest.split_at(at);
            rest = tail.get(1..).unwrap_or_default();
            if self.overlong {
                self.overlong = false;
            } else if self.partial.is_empty() {
                payload(line).map(&mut each);
            } else {
                self.partial.extend_from_slice(line);
                payload(&self.partial).map(&mut each);
            }
            self.partial.clear();
        }
        if self.overlong || rest.is_empty() {
            return;
        }
        if self.partial.len() + rest.len() > MAX_LINE {
            self.overlong = true;
            self.lost = true;
            self.partial = BytesMut::new();
        } else {
            self.partial.extend_from_slice(rest);
        }
    }

    /// Was there a line too long to be looked at?
    pub(crate) fn lost(&self) -> bool {
        self.lost
    }
}

fn payload(line: &[u8]) -> Option<&[u8]> {
    let data = line.strip_prefix(b"data:")?;
    let data = data.strip_prefix(b" ").unwrap_or(data);
    Some(data.strip_suffix(b"\r").unwrap_or(data))
}

/// Cuts a stream into whole frames (events with their empty line), so that one can be left out.
#[derive(Default)]
pub(crate) struct Frames {
    held: BytesMut,
}

impl Frames {
    /// What may go on now: all frames that `chunk` completes, without those that `drop_frame` names.
    pub(crate) fn feed(&mut self, chunk: Bytes, drop_frame: impl Fn(&[u8]) -> bool) -> Bytes {
        // The usual case: whole frames in one piece, nothing to leave out.
        if self.held.is_empty() && ends_frame(&chunk) && !frames(&chunk).any(&drop_frame) {
            return chunk;
        }
        self.held.extend_from_slice(&chunk);
        if self.held.len() > MAX_LINE {
            return std::mem::take(&mut self.held).freeze();
        }
        let whole = frames(&self.held).map(<[u8]>::len).sum();
        let whole = self.held.split_to(whole).freeze();
        if !frames(&whole).any(&drop_frame) {
            return whole;
        }
        let kept: Vec<&[u8]> = frames(&whole).filter(|frame| !drop_frame(frame)).collect();
        kept.concat().into()
    }

    /// What is left at the end of the stream.
    pub(crate) fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }
}

fn ends_frame(bytes: &[u8]) -> bool {
    bytes.ends_with(b"\n\n") || bytes.ends_with(b"\n\r\n")
}

/// The whole frames at the beginning of `bytes`.
fn frames(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let mut from = 0;
        loop {
            let end = from + memchr(b'\n', rest.get(from..)?)? + 1;
            let after = rest.get(end..)?;
            let blank = if after.starts_with(b"\n") {
                1
            } else if after.starts_with(b"\r\n") {
                2
            } else {
                from = end;
                continue;
            };
            let (frame, tail) = rest.split_at(end + blank);
            rest = tail;
            return Some(frame);
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data_of(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = DataLines::default();
        let mut all = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, |data| all.push(data.to_vec()));
        }
        all
    }

    /// Cuts `bytes` at the given places.
    fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        at.sort_unstable();
        at.push(bytes.len());
        let mut from = 0;
        at.into_iter()
            .map(|to| {
                let piece = &bytes[from..to];
                from = to;
                piece
            })
            .collect()
    }

    fn event() -> impl Strategy<Value = String> {
        ("[a-zäß🦀 {}\":]{0,30}", prop::bool::ANY, prop::bool::ANY).prop_map(
            |(text, named, crlf)| {
                let name = if named { "event: x\n" } else { "" };
                let frame = format!("{name}data: {text}\n\n");
                if crlf { frame.replace('\n', "\r\n") } else { frame }
            },
        )
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_payloads(
            events in prop::collection::vec(event(), 0..12),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let stream = events.concat();
            prop_assert_eq!(data_of(&pieces(stream.as_bytes(), &cuts)), data_of(&[stream.as_bytes()]));
        }

        #[test]
        fn any_chunking_leaves_out_the_same_frames_and_nothing_else(
            events in prop::collection::vec(event(), 0..12),
            tail in "[a-z]{0,9}",
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let drop_frame = |frame: &[u8]| frame.contains(&b'{');
            let stream = events.concat() + &tail;
            let mut frames = Frames::default();
            let mut out = Vec::new();
            for piece in pieces(stream.as_bytes(), &cuts) {
                out.extend_from_slice(&frames.feed(Bytes::copy_from_slice(piece), drop_frame));
            }
            out.extend_from_slice(&frames.finish());
            let expected: String = events.iter().filter(|e| !drop_frame(e.as_bytes())).cloned().collect::<String>() + &tail;
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        }

        #[test]
        fn no_input_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
            data_of(&pieces(&bytes, &cuts));
            let mut frames = Frames::default();
            for piece in pieces(&bytes, &cuts) {
                frames.feed(Bytes::copy_from_slice(piece), |_| false);
            }
            frames.finish();
        }
    }
}
