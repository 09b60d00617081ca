//! The exposure report as a page that a person can send: one file of HTML that is XML too, without scripts and without
//! anything from elsewhere; every text is escaped.

use std::fmt::Write as _;

use keybearer_contract::UnixMillis;

use super::report::CallUse;
use super::report::CredentialUse;
use super::report::ExposureReport;
use super::report::WhoUse;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}\
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem;border-bottom:1px solid #ccc}\
table{border-collapse:collapse;width:100%;margin:.5rem 0;font-size:13px}\
th,td{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;border-bottom:1px solid #e4e4e4;overflow-wrap:anywhere}\
.open{color:#a40000}.note{color:#555}";

impl ExposureReport {
    /// The page.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = Page::default();
        let incident = &self.incident;
        page.raw(
            "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\"><head><meta charset=\"utf-8\"/>",
        );
        page.raw("<meta name=\"viewport\" content=\"width=device-width\"/>");
        page.element("title", &format!("Exposure report: incident {}", incident.id));
        page.element("style", STYLE);
        page.raw("</head><body>");
        page.element("h1", &format!("Exposure report: {}", incident.subject.name()));
        self.summary(&mut page);
        for credential in &self.credentials {
            of_credential(&mut page, credential);
        }
        page.left_out(self.credentials_left_out, "further uses and acts are of credentials that are not listed");
        self.acts(&mut page);
        self.destinations(&mut page);
        who(&mut page, "Principals", &self.principals, self.principals_left_out);
        who(&mut page, "Runs", &self.runs, self.runs_left_out);
        self.calls(&mut page);
        page.raw("</body></html>\n");
        page.0
    }

    fn summary(&self, page: &mut Page) {
        let incident = &self.incident;
        let (counts, until) = (&incident.counts, incident.closed.map(UnixMillis::to_utc));
        let state = until.map_or_else(|| "open".to_owned(), |at| format!("closed at {at}"));
        page.table(
            &["", ""],
            [
                ["Incident".to_owned(), incident.id.to_string()],
                ["State".to_owned(), state],
                ["Opened".to_owned(), format!("{} by {}", incident.opened.to_utc(), incident.by)],
                ["Everything stopped".to_owned(), time(incident.contained)],
                ["Known at the beginning".to_owned(), incident.note.clone()],
                ["Root cause".to_owned(), incident.root_cause.clone().unwrap_or_else(|| "not known yet".to_owned())],
                ["Calls that used it".to_owned(), self.calls_total.to_string()],
                ["Requests that used it".to_owned(), self.uses.to_string()],
                ["Requests that were stopped unsent".to_owned(), self.not_sent.to_string()],
                ["First use".to_owned(), time(self.first_use)],
                ["Last use".to_owned(), time(self.last_use)],
                [
                    "Revoked".to_owned(),
                    format!(
                        "{} credentials, {} API tokens, {} grants",
                        counts.credentials_revoked, counts.tokens_revoked, counts.grants_taken
                    ),
                ],
                [
                    "Stopped".to_owned(),
                    format!(
                        "{} calls, {} requests in flight, {} runs",
                        counts.calls_cancelled, counts.dispatches_cancelled, counts.runs_ended
                    ),
                ],
                [
                    "Flushed".to_owned(),
                    format!(
                        "{} kept connections, {} things held ready, {} minted tokens taken back",
                        counts.connections_closed, counts.caches_flushed, counts.minted_revoked
                    ),
                ],
            ],
        );
        page.note(&format!(
            "Put together at {} from {} records of the ledger; check them with `keybearer ledger verify`. \
             Times are UTC, by the server's clock.",
            self.made.to_utc(),
            self.records
        ));
    }

    fn acts(&self, page: &mut Page) {
        if self.acts.is_empty() {
            return;
        }
        page.element("h2", "What it administered");
        page.left_out(self.acts_left_out, "earlier acts are not listed");
        let rows = self.acts.iter().map(|act| [act.at.to_utc(), act.what.clone(), act.subject.clone(), act.by.clone()]);
        page.table(&["At", "Act", "Of", "By"], rows);
    }

    fn destinations(&self, page: &mut Page) {
        page.element("h2", "Where it went");
        let rows = self.destinations.iter().map(|place| {
            [
                place.destination.clone(),
                format!("{} {}", place.method, place.path),
                place.credential.as_ref().map(ToString::to_string).unwrap_or_default(),
                place.purpose.clone(),
                place.uses.to_string(),
                place.first_use.to_utc(),
                place.last_use.to_utc(),
            ]
        });
        page.table(&["Destination", "Request", "Credential", "Purpose", "Uses", "First", "Last"], rows);
        page.left_out(self.destinations_left_out, "further requests went to places that are not listed");
    }

    fn calls(&self, page: &mut Page) {
        page.element("h2", "Calls");
        page.left_out(self.calls_left_out, "earlier calls are not listed");
        page.table(
            &["At", "Call", "Tenant", "Run", "Principal", "Tool", "Outcome", "Requests"],
            self.calls.iter().map(|call| {
                [
                    call.at.to_utc(),
                    call.call.to_string(),
                    call.tenant.to_string(),
                    call.run.to_string(),
                    call.principal.clone(),
                    format!("{} of {}", call.tool, call.package),
                    call.outcome.clone(),
                    requests(call),
                ]
            }),
        );
    }
}

fn requests(call: &CallUse) -> String {
    let mut text = String::new();
    for dispatch in &call.dispatches {
        let version = dispatch.version.map(|version| format!(", version {version}")).unwrap_or_default();
        let (method, place, outcome) = (&dispatch.method, &dispatch.place, &dispatch.outcome);
        // Writing to a string does not fail.
        let _ = write!(text, "{method} {place} ({}{version}): {outcome}; ", dispatch.address);
    }
    if call.dispatches_left_out > 0 {
        let _ = write!(text, "and {} more", call.dispatches_left_out);
    }
    text
}

fn of_credential(page: &mut Page, credential: &CredentialUse) {
    page.element("h2", &format!("Credential {}", credential.credential));
    let exposed = credential.exposed_ms.map_or_else(|| "never used".to_owned(), duration);
    page.table(
        &["", ""],
        [
            ["Name".to_owned(), credential.name.clone()],
            ["Tenant".to_owned(), credential.tenant.to_string()],
            ["Kind".to_owned(), credential.kind.clone()],
            ["Owner".to_owned(), credential.owner.clone()],
            ["State".to_owned(), credential.state.clone()],
            ["Stored".to_owned(), time(credential.created)],
            ["Revoked".to_owned(), time(credential.revoked)],
            ["Uses".to_owned(), credential.uses.to_string()],
            ["From first use to revocation".to_owned(), exposed],
        ],
    );
    let scope = credential.scope.iter().map(|scope| {
        let tools = if scope.tools.is_empty() { "every tool".to_owned() } else { scope.tools.join(", ") };
        [format!("{} ({})", scope.package, scope.slot), tools, scope.places.join("; ")]
    });
    page.table(&["Granted to (slot)", "Tools", "Places"], scope);
    let versions = credential.versions.iter().map(|version| {
        [
            version.version.to_string(),
            version.state.clone(),
            time(version.created),
            version.uses.to_string(),
            time(version.first_use),
            time(version.last_use),
        ]
    });
    page.table(&["Version", "State", "Stored", "Uses", "First use", "Last use"], versions);
    page.left_out(credential.acts_left_out, "earlier acts are not listed");
    let acts = credential.acts.iter().map(|act| {
        let version = act.version.map(|version| version.to_string()).unwrap_or_default();
        [act.at.to_utc(), act.what.clone(), version, act.by.clone()]
    });
    page.table(&["At", "Act", "Version", "By"], acts);
}

fn who(page: &mut Page, title: &str, rows: &[WhoUse], left_out: u64) {
    page.element("h2", title);
    let cells = rows.iter().map(|row| {
        let (first, last) = (row.first_use.to_utc(), row.last_use.to_utc());
        [row.name.clone(), row.tenant.to_string(), row.uses.to_string(), first, last]
    });
    page.table(&["Name", "Tenant", "Uses", "First", "Last"], cells);
    page.left_out(left_out, "further requests are of others that are not listed");
}

fn time(at: Option<UnixMillis>) -> String {
    at.map_or_else(|| "-".to_owned(), UnixMillis::to_utc)
}

/// Milliseconds in days, hours, minutes and seconds.
fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{days} d {hours} h {minutes} min {} s", seconds % 60)
}

/// The text so far.
#[derive(Default)]
struct Page(String);

impl Page {
    /// What is ours, as it stands.
    fn raw(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// Text of anybody's.
    fn text(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' => self.0.push('\n'),
                // No character of XML 1.0 (§2.2), or one that turns text around.
                other
                    if other.is_control()
                        || matches!(other, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}') =>
                {
                    self.0.push('\u{fffd}');
                }
                other => self.0.push(other),
            }
        }
    }

    fn element(&mut self, name: &'static str, text: &str) {
        self.0.push('<');
        self.0.push_str(name);
        self.0.push('>');
        self.text(text);
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
    }

    fn note(&mut self, text: &str) {
        self.raw("<p class=\"note\">");
        self.text(text);
        self.raw("</p>");
    }

    fn left_out(&mut self, count: u64, what: &str) {
        if count > 0 {
            self.note(&format!("{count} {what}: they are in `keybearer ledger export`."));
        }
    }

    fn table<const COLUMNS: usize>(
        &mut self,
        head: &[&str; COLUMNS],
        rows: impl IntoIterator<Item = [String; COLUMNS]>,
    ) {
        self.raw("<table>");
        if head.iter().any(|name| !name.is_empty()) {
            self.raw("<tr>");
            head.iter().for_each(|name| self.element("th", name));
            self.raw("</tr>");
        }
        for row in rows {
            self.raw("<tr>");
            row.iter().for_each(|cell| self.element("td", cell));
            self.raw("</tr>");
        }
        self.raw("</table>\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_anybodys_becomes_markup() {
        // If this failed, whoever names a principal could run a script where the page is read.
        let mut page = Page::default();
        page.element("td", "<script>alert('x')</script>&\"\u{1b}[31m\u{202e}");
        assert_eq!(page.0, "<td>&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;\u{fffd}[31m\u{fffd}</td>");
    }

    #[test]
    fn durations_are_said_as_people_read_them() {
        assert_eq!(duration(90_061_999), "1 d 1 h 1 min 1 s");
    }
}
