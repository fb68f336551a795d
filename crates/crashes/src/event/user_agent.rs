//! Which browser and system a `User-Agent` names: the few that nearly all are.

/// The mark in the header, and what it stands for; those that also bear another's mark come first.
const BROWSERS: &[(&str, &str)] = &[
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("YaBrowser/", "Yandex"),
    ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("HeadlessChrome/", "Headless Chrome"),
    ("Chrome/", "Chrome"),
    ("Version/", "Safari"),
    ("MSIE ", "Internet Explorer"),
];
const SYSTEMS: &[(&str, &str)] = &[
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("iPad", "iOS"),
    ("Mac OS X", "macOS"),
    ("CrOS", "Chrome OS"),
    ("Linux", "Linux"),
];

pub(super) type Browser<'a> = (&'static str, &'a str);

/// The browser with its major version, and the system.
pub(super) fn read(header: &str) -> (Option<Browser<'_>>, Option<&'static str>) {
    let browser = BROWSERS.iter().find_map(|(mark, name)| {
        let (_, rest) = header.split_once(mark)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some((*name, rest.get(..end)?))
    });
    let system = SYSTEMS.iter().find(|(mark, _)| header.contains(mark)).map(|(_, name)| *name);
    (browser, system)
}
