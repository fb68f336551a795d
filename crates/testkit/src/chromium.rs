//! A real browser without a window, driven over the DevTools protocol on two named pipes: what a page
//! looks like from outside our own code. Blocking; for tests on a thread of their own.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Where a page may take this long.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(50);

/// A running browser; it ends when this is dropped.
pub struct Chromium {
    child: Child,
    commands: File,
    answers: BufReader<File>,
    last: u64,
    _dir: TempDir,
}

/// A tab in a browser of its own: it shares cookies with no other.
#[derive(Clone, Debug)]
pub struct Tab(String);

/// The browser that `LOOM_TEST_CHROMIUM` names, or the one on the path; None when there is none.
pub fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("LOOM_TEST_CHROMIUM") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path)
        .flat_map(|dir| names.map(|name| dir.join(name)))
        .find(|candidate| candidate.is_file())
}

impl Chromium {
    pub fn start(program: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let made = Command::new("mkfifo").args([at("in"), at("out")]).status().unwrap();
        assert!(made.success(), "mkfifo");
        // The protocol is on descriptors 3 and 4.
        let script = "exec \"$0\" --headless=new --no-sandbox --disable-gpu --no-first-run --user-data-dir=\"$3\" \
                      --remote-debugging-pipe about:blank 3<\"$1\" 4>\"$2\"";
        let child = Command::new("sh")
            .args([
                "-c",
                script,
                &program.display().to_string(),
                &at("in"),
                &at("out"),
                &at("profile"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // In the order of the script: each waits for the other side.
        let commands = OpenOptions::new().write(true).open(dir.path().join("in")).unwrap();
        let answers = BufReader::new(File::open(dir.path().join("out")).unwrap());
        Self { child, commands, answers, last: 0, _dir: dir }
    }

    fn ask(&mut self, tab: Option<&Tab>, method: &str, params: &Value) -> Value {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": params});
        if let Some(Tab(session)) = tab {
            command["sessionId"] = session.as_str().into();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let mut text = Vec::new();
            self.answers.read_until(0, &mut text).unwrap();
            assert_eq!(text.pop(), Some(0), "the browser went away");
            let answer: Value = serde_json::from_slice(&text).unwrap();
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// A tab without cookies.
    pub fn tab(&mut self) -> Tab {
        let context = self.ask(None, "Target.createBrowserContext", &json!({}));
        let target = json!({"url": "about:blank", "browserContextId": context["browserContextId"]});
        let target = self.ask(None, "Target.createTarget", &target);
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = self.ask(None, "Target.attachToTarget", &attach);
        let tab = Tab(session["sessionId"].as_str().unwrap().to_owned());
        self.ask(Some(&tab), "Page.enable", &json!({}));
        tab
    }

    /// Opens a URL.
    pub fn open(&mut self, tab: &Tab, url: &str) {
        self.ask(Some(tab), "Page.navigate", &json!({"url": url}));
    }

    /// The value of an expression in the page; null while the page changes.
    pub fn value(&mut self, tab: &Tab, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        self.ask(Some(tab), "Runtime.evaluate", &params)["result"]["value"].clone()
    }

    /// Waits until an expression is true there.
    #[track_caller]
    pub fn until(&mut self, tab: &Tab, expression: &str) {
        for _ in 0..TRIES {
            let whole = format!("document.readyState === 'complete' && ({expression})");
            if self.value(tab, &whole) == true {
                return;
            }
            thread::sleep(PAUSE);
        }
        let page = self.value(tab, "location.href + '\\n' + document.body.innerText");
        panic!("{expression} does not become true on {page}");
    }

    /// Waits for a heading.
    #[track_caller]
    pub fn until_heading(&mut self, tab: &Tab, words: &str) {
        let words = json!(words);
        self.until(tab, &format!("document.querySelector('h1')?.innerText.includes({words})"));
    }

    pub fn text(&mut self, tab: &Tab) -> String {
        self.value(tab, "document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Types into what a selector names.
    pub fn type_into(&mut self, tab: &Tab, selector: &str, text: &str) {
        self.until(tab, &format!("document.querySelector({}) !== null", json!(selector)));
        self.value(tab, &format!("document.querySelector({}).focus()", json!(selector)));
        self.ask(Some(tab), "Input.insertText", &json!({"text": text}));
    }

    /// Presses what a selector names, with the mouse.
    pub fn click(&mut self, tab: &Tab, selector: &str) {
        self.until(tab, &format!("document.querySelector({}) !== null", json!(selector)));
        let middle = format!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{block: 'center'}}); \
             const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()",
            json!(selector)
        );
        let middle = self.value(tab, &middle);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": middle[0], "y": middle[1], "button": "left", "clickCount": 1});
            self.ask(Some(tab), "Input.dispatchMouseEvent", &event);
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
