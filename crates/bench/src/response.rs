//! As much of HTTP/1.1 as a closed-loop client needs: one response, fed in whatever pieces arrive.

use anyhow::{Context as _, Result, bail, ensure};

const HEAD_LIMIT: usize = 64 * 1024;
const BODY_LIMIT: usize = 64 * 1024 * 1024;

/// The response being read; `reset` makes it ready for the next one and keeps its memory.
#[derive(Default)]
pub(crate) struct Response {
    state: State,
    head: Vec<u8>,
    pub(crate) status: u16,
    /// The server closes the connection after this response.
    pub(crate) close: bool,
    pub(crate) body: Vec<u8>,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Head,
    /// This many bytes of the body are still to come.
    Length(usize),
    /// In the line with the size of a chunk; the number read so far, none before its first digit.
    ChunkSize(Option<usize>),
    /// In the extension after a size.
    ChunkExtension(usize),
    ChunkData(usize),
    ChunkEnd,
    /// In the trailer; how many bytes its current line has.
    Trailer(usize),
    Done,
}

impl Response {
    pub(crate) fn reset(&mut self) {
        self.state = State::Head;
        self.head.clear();
        self.status = 0;
        self.close = false;
        self.body.clear();
    }

    /// Takes the next bytes from the connection; true when the response is complete.
    /// Bytes after its end are an error: nobody has asked for more.
    pub(crate) fn feed(&mut self, mut input: &[u8]) -> Result<bool> {
        while !input.is_empty() {
            input = match self.state {
                State::Head => self.feed_head(input)?,
                State::Length(left) => {
                    let (taken, rest) = self.feed_body(input, left)?;
                    self.state =
                        if taken == left { State::Done } else { State::Length(left - taken) };
                    rest
                }
                State::ChunkData(left) => {
                    let (taken, rest) = self.feed_body(input, left)?;
                    self.state = if taken == left {
                        State::ChunkEnd
                    } else {
                        State::ChunkData(left - taken)
                    };
                    rest
                }
                State::Done => bail!("{} bytes after the end of the response", input.len()),
                framing => {
                    let Some((&byte, rest)) = input.split_first() else { break };
                    self.state = next_framing(framing, byte)?;
                    rest
                }
            };
        }
        Ok(matches!(self.state, State::Done))
    }

    fn feed_head<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8]> {
        let before = self.head.len();
        self.head.extend_from_slice(input);
        let Some(end) = memchr::memmem::find(&self.head, b"\r\n\r\n") else {
            ensure!(self.head.len() <= HEAD_LIMIT, "the response's head is too long");
            return Ok(&[]);
        };
        let taken = (end + 4).saturating_sub(before);
        self.head.truncate(end);
        self.read_head()?;
        Ok(input.get(taken..).unwrap_or_default())
    }

    fn read_head(&mut self) -> Result<()> {
        let head = std::str::from_utf8(&self.head).context("the response's head is not text")?;
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
        ensure!(words.next() == Some("HTTP/1.1"), "not an HTTP/1.1 response");
        self.status =
            words.next().unwrap_or_default().parse().context("no status in the response")?;
        let mut length = None;
        let mut chunked = false;
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                bail!("a header without a colon")
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.parse().context("content-length is not a number")?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.eq_ignore_ascii_case("chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                self.close = value.eq_ignore_ascii_case("close");
            }
        }
        self.state = match (chunked, length) {
            (true, _) => State::ChunkSize(None),
            (false, Some(0)) => State::Done,
            (false, Some(length)) => State::Length(length),
            (false, None) => {
                bail!("the response (status {}) has no length and is not chunked", self.status)
            }
        };
        Ok(())
    }

    fn feed_body<'a>(&mut self, input: &'a [u8], left: usize) -> Result<(usize, &'a [u8])> {
        let (taken, rest) = input.split_at_checked(left).unwrap_or((input, &[]));
        ensure!(self.body.len() + taken.len() <= BODY_LIMIT, "the response's body is too long");
        self.body.extend_from_slice(taken);
        Ok((taken.len(), rest))
    }
}

/// The chunk framing, byte by byte: only its few bytes go through here, never the data.
fn next_framing(state: State, byte: u8) -> Result<State> {
    Ok(match (state, byte) {
        (State::ChunkSize(Some(size)), b'\r' | b';' | b' ') => State::ChunkExtension(size),
        (State::ChunkSize(Some(size)), b'\n') => after_size(size),
        (State::ChunkSize(size), _) => {
            let digit =
                char::from(byte).to_digit(16).context("the size of a chunk is not a number")?;
            let size = size.unwrap_or(0);
            ensure!(size <= BODY_LIMIT, "a chunk is too long");
            State::ChunkSize(Some(size * 16 + digit as usize))
        }
        (State::ChunkExtension(size), b'\n') => after_size(size),
        (State::ChunkEnd, b'\n') => State::ChunkSize(None),
        (State::ChunkEnd | State::ChunkExtension(_) | State::Trailer(_), b'\r') => state,
        (State::ChunkEnd, _) => bail!("a chunk is longer than its size"),
        (State::Trailer(0), b'\n') => State::Done,
        (State::Trailer(_), b'\n') => State::Trailer(0),
        (State::Trailer(length), _) => State::Trailer(length + 1),
        (other, _) => other,
    })
}

fn after_size(size: usize) -> State {
    if size == 0 { State::Trailer(0) } else { State::ChunkData(size) }
}

#[cfg(test)]
mod tests {
    use super::Response;

    const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx: y\r\n\r\nhello";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n";
    const TRAILER: &[u8] =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y\r\n\r\n";
    const EMPTY: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    /// Feeds the bytes in pieces of every size and checks that each gives the same response.
    fn check(wire: &[u8], status: u16, body: &[u8], close: bool) {
        for size in 1..=wire.len() {
            let mut response = Response::default();
            let mut fed = 0;
            for piece in wire.chunks(size) {
                fed += piece.len();
                assert_eq!(
                    response.feed(piece).unwrap(),
                    fed == wire.len(),
                    "pieces of {size}, after {fed}"
                );
            }
            assert_eq!((response.status, response.close), (status, close));
            assert_eq!(response.body, body, "pieces of {size}");
        }
    }

    fn fails(wire: &[u8]) -> String {
        Response::default().feed(wire).unwrap_err().to_string()
    }

    #[test]
    fn reads_responses_in_any_pieces() {
        check(PLAIN, 200, b"hello", false);
        check(CHUNKED, 200, b"abc0123456789", false);
        check(TRAILER, 200, b"a", false);
        check(EMPTY, 503, b"", true);
    }

    #[test]
    fn reset_makes_ready_for_the_next() {
        let mut response = Response::default();
        assert!(response.feed(EMPTY).unwrap());
        response.reset();
        assert!(response.feed(CHUNKED).unwrap());
        assert_eq!((response.status, response.close), (200, false));
        assert_eq!(response.body, b"abc0123456789");
    }

    #[test]
    fn an_unfinished_response_is_not_complete() {
        for cut in 0..CHUNKED.len() {
            assert!(!Response::default().feed(&CHUNKED[..cut]).unwrap(), "cut at {cut}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_response() {
        assert!(fails(&[PLAIN, b"!"].concat()).contains("after the end"));
        assert!(fails(b"SSH-2.0 200\r\n\r\n").contains("HTTP/1.1"));
        assert!(fails(b"HTTP/1.1 OK\r\n\r\n").contains("status"));
        assert!(fails(b"HTTP/1.1 200 OK\r\n\r\n").contains("no length"));
        assert!(fails(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n").contains("content-length"));
        assert!(
            fails(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
                .contains("not a number")
        );
        assert!(
            fails(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n")
                .contains("not a number")
        );
        assert!(
            fails(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab")
                .contains("longer")
        );
        assert!(
            fails(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff")
                .contains("too long")
        );
    }
}
