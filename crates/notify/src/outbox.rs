//! Mail where there is no mail server: files in a folder.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use chrono::{DateTime, Utc};
use tokio::{fs, io::AsyncWriteExt};

use crate::store::Claimed;

/// Makes a folder that nobody else can enter. What is above it is none of its business: others have
/// to get through there.
async fn make_folder(folder: &Path) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).await?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder).await {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Writes a mail to a new file that nobody else can read.
pub(crate) async fn write(
    folder: &Path,
    mail: &Claimed,
    now: DateTime<Utc>,
    bytes: &[u8],
) -> io::Result<PathBuf> {
    make_folder(folder).await?;
    let safe = |text: &str| -> String {
        let is_safe = |c: char| c.is_ascii_alphanumeric() || "@._+-".contains(c);
        text.chars().map(|c| if is_safe(c) { c } else { '_' }).take(120).collect()
    };
    let name =
        format!("{}-{}-{}", now.format("%Y%m%dT%H%M%S%3fZ"), safe(&mail.kind), safe(&mail.target));
    let create = async |name: String| {
        let file = folder.join(name);
        let mut options = fs::OpenOptions::new();
        Ok::<_, io::Error>((
            options.write(true).create_new(true).mode(0o600).open(&file).await?,
            file,
        ))
    };
    let created = match create(format!("{name}.eml")).await {
        // Two in one millisecond.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            create(format!("{name}-{}.eml", mail.id)).await
        }
        created => created,
    };
    let (mut file, path) = created?;
    file.write_all(bytes).await?;
    file.sync_all().await?;
    Ok(path)
}

/// Removes files that were written to the outbox before; gives their number.
pub(crate) async fn sweep(folder: &Path, before: SystemTime) -> io::Result<u64> {
    let mut removed = 0;
    let mut entries = match fs::read_dir(folder).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    while let Some(entry) = entries.next_entry().await? {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "eml")
            || entry.metadata().await?.modified()? >= before
        {
            continue;
        }
        fs::remove_file(path).await?;
        removed += 1;
    }
    Ok(removed)
}

/// For the developer, who has no mail server, the text is in the log too: a sign-in link stands in it.
pub(crate) fn tell(mail: &Claimed, file: &Path, text: Option<&String>) {
    let (kind, to, subject, file) = (&mail.kind, &mail.target, &mail.subject, file.display());
    match text {
        Some(text) => tracing::info!(
            kind, to, subject, %file,
            "no mail server is configured, the mail was written to the outbox:\n{text}"
        ),
        None => tracing::warn!(
            kind, to, subject, %file,
            "no mail server is configured, the mail was only written to the outbox"
        ),
    }
}
