//! The pages: HTML that is made here, needs no script, and reads well aloud and on a phone.
//!
//! Everything that came from outside goes through [`escape`]; a content security policy forbids what should slip past.

use std::borrow::Cow;
use std::fmt::Write as _;

use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use jiff::civil::Date;

use crate::course::Course;
use crate::database::Database;
use crate::price::Currency;
use crate::problem::{Mistake, Problem};
use crate::query::{Query, SORTS};
use crate::store::{self, Listed};
use crate::{Answer, api};

const STYLE: &str = include_str!("style.css");
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// `GET /`: the list, and what it is searched with.
pub async fn list(State(database): State<Database>, RawQuery(text): RawQuery) -> Answer {
    let text = text.unwrap_or_default();
    let (query, mistakes) = match Query::parse(&text) {
        Ok(query) => (query, Vec::new()),
        Err(mistakes) => (Query::default(), mistakes),
    };
    let asked = query.clone();
    let listed = if mistakes.is_empty() {
        Some(database.run(move |connection| store::list(connection, &asked)).await.map_err(failed)?)
    } else {
        None
    };
    let status = if mistakes.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    Ok(page(status, "Courses", &list_body(&query, &mistakes, listed.as_ref())))
}

/// `GET /courses/ID`.
pub async fn show(State(database): State<Database>, Path(id): Path<String>) -> Answer {
    let found = match api::number(&id) {
        Ok(number) => database.run(move |connection| store::get(connection, number)).await.map_err(failed)?,
        Err(_) => None,
    };
    Ok(match found {
        Some(course) => page(StatusCode::OK, &course.draft.name, &course_body(&course)),
        None => not_found(&format!("There is no course {id:?}.")),
    })
}

/// `GET /style.css`.
pub async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=3600")];
    (headers, STYLE).into_response()
}

/// A page that says that there is nothing.
pub fn not_found(what: &str) -> Response {
    let body = format!("<h1>Not found</h1>\n<p>{}</p>\n<p><a href=\"/\">All courses</a></p>\n", escape(what));
    page(StatusCode::NOT_FOUND, "Not found", &body)
}

/// A failure of the database is told in JSON here too: it is for whoever runs the service.
fn failed(error: crate::database::DatabaseError) -> Problem {
    error.into()
}

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let title = escape(title);
    let text = format!(
        "<!doctype html>\n\
         <html lang=\"en\">\n\
         <head>\n\
         <meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n\
         <link rel=\"stylesheet\" href=\"/style.css\">\n\
         </head>\n\
         <body>\n\
         <header><a href=\"/\">Courses</a></header>\n\
         <main>\n{body}</main>\n\
         <footer>The same as JSON: <a href=\"/api/courses\">/api/courses</a></footer>\n\
         </body>\n\
         </html>\n"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (status, headers, text).into_response()
}

fn list_body(query: &Query, mistakes: &[Mistake], listed: Option<&Listed>) -> String {
    let mut body = String::from("<h1>Courses</h1>\n");
    if !mistakes.is_empty() {
        body.push_str("<div role=\"alert\">\n<p>This search cannot be understood:</p>\n<ul>\n");
        for mistake in mistakes {
            let place = mistake.place();
            write_to(&mut body, format_args!("<li>{}: {}</li>\n", escape(&place), escape(&mistake.detail)));
        }
        body.push_str("</ul>\n</div>\n");
    }
    body.push_str(&form(query));
    let Some(listed) = listed else { return body };
    let count = match listed.total {
        0 => "No course fits".to_owned(),
        1 => "1 course".to_owned(),
        total => format!("{total} courses"),
    };
    write_to(
        &mut body,
        format_args!("<h2 id=\"found\">{count}</h2>\n<ul class=\"courses\" aria-labelledby=\"found\">\n"),
    );
    for Course { id, draft, .. } in &listed.courses {
        write_to(
            &mut body,
            format_args!(
                "<li>\n<h3><a href=\"/courses/{id}\">{}</a></h3>\n<p>{} to {} · {}</p>\n</li>\n",
                escape(&draft.name),
                day(draft.start),
                day(draft.end),
                price(&draft.price),
            ),
        );
    }
    body.push_str("</ul>\n");
    body.push_str(&pages(query, listed.total));
    body
}

fn form(query: &Query) -> String {
    let option = |value: &str, text: &str, chosen: bool| {
        let selected = if chosen { " selected" } else { "" };
        format!("<option value=\"{value}\"{selected}>{text}</option>")
    };
    let currencies = Currency::all().fold(option("", "any", query.currency.is_none()), |options, code| {
        options + &option(code, code, query.currency.is_some_and(|currency| currency.code() == code))
    });
    let sorts = SORTS
        .iter()
        .fold(String::new(), |options, (word, name, sort)| options + &option(word, name, *sort == query.sort));
    let date = |day: Option<Date>| day.map(|day| day.to_string()).unwrap_or_default();
    format!(
        "<form method=\"get\" action=\"/\" role=\"search\">\n\
         <p><label for=\"q\">Words</label> <input type=\"search\" id=\"q\" name=\"q\" value=\"{}\"></p>\n\
         <p><label for=\"from\">Starts from</label> <input type=\"date\" id=\"from\" name=\"from\" value=\"{}\"></p>\n\
         <p><label for=\"to\">Starts until</label> <input type=\"date\" id=\"to\" name=\"to\" value=\"{}\"></p>\n\
         <p><label for=\"max_price\">Costs at most</label> \
         <input id=\"max_price\" name=\"max_price\" inputmode=\"decimal\" value=\"{}\"></p>\n\
         <p><label for=\"currency\">Currency</label> <select id=\"currency\" name=\"currency\">{currencies}</select></p>\n\
         <p><label for=\"sort\">First</label> <select id=\"sort\" name=\"sort\">{sorts}</select></p>\n\
         <p><button>Search</button></p>\n\
         </form>\n",
        escape(&query.q),
        date(query.from),
        date(query.to),
        query.price_text(query.max_price),
    )
}

fn pages(query: &Query, total: u64) -> String {
    let last = total.div_ceil(query.per_page.into()).max(1);
    if last == 1 && query.page == 1 {
        return String::new();
    }
    let link = |page: u32, relation: &str, text: &str| {
        format!("<a rel=\"{relation}\" href=\"/?{}\">{text}</a> ", escape(&query.for_page(page)))
    };
    let mut nav = String::from("<nav aria-label=\"Pages\">\n");
    if query.page > 1 {
        nav.push_str(&link(query.page - 1, "prev", "Previous page"));
    }
    write_to(&mut nav, format_args!("<span>Page {} of {last}</span> ", query.page));
    if u64::from(query.page) < last {
        nav.push_str(&link(query.page + 1, "next", "Next page"));
    }
    nav + "\n</nav>\n"
}

fn course_body(course: &Course) -> String {
    let draft = &course.draft;
    let paragraphs: String = draft
        .description
        .split("\n\n")
        .map(|paragraph| format!("<p>{}</p>\n", escape(paragraph.trim()).replace('\n', "<br>\n")))
        .collect();
    format!(
        "<h1>{}</h1>\n\
         <dl>\n<dt>From</dt><dd>{}</dd>\n<dt>Until</dt><dd>{}</dd>\n<dt>Price</dt><dd>{}</dd>\n</dl>\n\
         {paragraphs}\
         <p><a href=\"/\">All courses</a> · <a href=\"/api/courses/{}\">This course as JSON</a></p>\n",
        escape(&draft.name),
        day(draft.start),
        day(draft.end),
        price(&draft.price),
        course.id,
    )
}

fn day(day: Date) -> String {
    format!("<time datetime=\"{day}\">{}</time>", day.strftime("%-d %B %Y"))
}

fn price(price: &crate::price::Price) -> String {
    if price.amount_minor == 0 { "free".to_owned() } else { price.to_string() }
}

fn write_to(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.write_fmt(piece).expect("a text takes whatever is written");
}

/// A text as it stands for itself in HTML, between tags and in quoted attributes.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_becomes_a_tag() {
        assert_eq!(escape("<a href=\"x\" id='y'>&amp;"), "&lt;a href=&quot;x&quot; id=&#39;y&#39;&gt;&amp;amp;");
        assert_eq!(escape("日本語"), "日本語");
    }
}
