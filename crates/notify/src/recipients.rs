//! To whom mail of an organisation may go. An address that anybody may name is somebody's who never asked for
//! it; those of members are their own, and whoever leaves is not written to any more.

use loom_core::{Error, Result, error::FieldError, id::OrgId, port::OrgDirectory};

use crate::is_address;

/// Are these addresses that mail of the organisation may go to? `path` is the field that names them.
///
/// # Errors
/// 422 with each that is none.
pub async fn check_recipients(
    orgs: &dyn OrgDirectory,
    org: OrgId,
    path: &str,
    emails: &[String],
) -> Result<()> {
    if emails.is_empty() {
        return Ok(());
    }
    let members = orgs.members_among(org, emails).await?;
    let wrong: Vec<FieldError> = emails
        .iter()
        .enumerate()
        .filter(|(_, email)| !members.contains(email))
        .map(|(index, email)| FieldError {
            path: format!("{path}[{index}]"),
            message: if is_address(email) {
                "is the address of no member of the organisation: invite whoever is to be told, or use a \
                 webhook"
            } else {
                "is an e-mail address, as ada@example.com"
            }
            .to_owned(),
        })
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(Error::invalid_fields(wrong)) }
}

/// Those of the addresses that are still members'.
pub async fn recipients(
    orgs: &dyn OrgDirectory,
    org: OrgId,
    emails: &[String],
) -> Result<Vec<String>> {
    if emails.is_empty() {
        return Ok(Vec::new());
    }
    let mut members = orgs.members_among(org, emails).await?;
    members.dedup();
    if members.len() < emails.len() {
        tracing::info!(%org, "an alert goes to no address that is not a member's any more");
    }
    Ok(members)
}
