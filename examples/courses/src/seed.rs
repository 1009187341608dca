//! The courses that a new platform opens with.

use rusqlite::Connection;

use crate::course::{Draft, date};
use crate::price::{Currency, Price};
use crate::store;

/// Name, price, currency, first day, last day, description.
type Row = (&'static str, i64, &'static str, &'static str, &'static str, &'static str);

const COURSES: &[Row] = &[
    (
        "Rust from the First Line",
        14_900,
        "EUR",
        "2027-01-11",
        "2027-03-05",
        "Ownership, traits, errors and tests, one small program a week. For people who know another language and want \
         to write software that does not fall over at night.",
    ),
    (
        "Databases You Can Reason About",
        17_900,
        "EUR",
        "2027-01-18",
        "2027-03-19",
        "Tables, indexes, transactions and what isolation levels really promise. You build a bookshop's stock keeping \
         and then break it in every way that two customers at once can.",
    ),
    (
        "Statistics without Fear",
        9_900,
        "EUR",
        "2027-02-01",
        "2027-03-26",
        "From the mean to the confidence interval with data that you collect yourself. No calculus needed; \
         stubbornness helps.",
    ),
    (
        "How Computers Talk: Networks from the Wire Up",
        12_900,
        "EUR",
        "2027-02-08",
        "2027-04-02",
        "Frames, addresses, TCP, DNS, TLS. Each week you write the layer that you have just understood.",
    ),
    (
        "Accessible Web Pages",
        0,
        "EUR",
        "2027-02-15",
        "2027-02-26",
        "Two weeks on headings, labels, contrast and the keyboard. Free, because everybody who makes pages should \
         know it.",
    ),
    (
        "Introduction to Machine Learning",
        24_900,
        "USD",
        "2027-03-01",
        "2027-05-28",
        "Linear models, trees, neural networks, and how to tell whether any of them has learned something. Python and \
         school mathematics are enough.",
    ),
    (
        "Écrire en français",
        8_500,
        "EUR",
        "2027-03-08",
        "2027-05-14",
        "Un atelier d'écriture pour niveaux B2 et C1 : lettres, récits, articles. Chaque texte est lu et commenté.",
    ),
    (
        "The Physics of Music",
        7_900,
        "GBP",
        "2027-03-15",
        "2027-05-07",
        "Why a fifth sounds like a fifth. Strings, pipes, drums and rooms, with a kitchen full of experiments.",
    ),
    (
        "Project Management for Small Teams",
        19_900,
        "EUR",
        "2027-04-05",
        "2027-05-21",
        "Plans that survive the second week: goals, estimates, risks, and meetings that end early.",
    ),
    (
        "Operating Systems: Build a Container",
        22_000,
        "EUR",
        "2027-04-12",
        "2027-06-25",
        "Processes, namespaces, cgroups and file systems. At the end a program of your own shuts another one in.",
    ),
    (
        "Japanese for Beginners",
        18_000,
        "JPY",
        "2027-04-19",
        "2027-09-10",
        "Hiragana, katakana, the first two hundred kanji, and enough grammar to order, ask and thank. 日本語入門。",
    ),
    (
        "Bookkeeping for the Self-Employed",
        11_500,
        "CHF",
        "2027-05-03",
        "2027-06-11",
        "Invoices, receipts, value added tax and the yearly statement, with the forms in front of you.",
    ),
    (
        "Drawing What You See",
        6_500,
        "GBP",
        "2027-05-10",
        "2027-07-16",
        "Pencil and paper, one evening a week. Proportion, light and patience; talent is not asked for.",
    ),
    (
        "A Weekend of Git",
        4_900,
        "EUR",
        "2027-06-05",
        "2027-06-06",
        "What a commit is, what a branch is, and how to get out of every mess that two days of trying can produce.",
    ),
];

/// Adds them.
///
/// # Errors
/// SQLite's.
///
/// # Panics
/// Where one of them is no course.
pub fn plant(connection: &Connection) -> rusqlite::Result<()> {
    for &(name, amount_minor, currency, start, end, description) in COURSES {
        let draft = Draft {
            name: name.to_owned(),
            description: description.to_owned(),
            price: Price { amount_minor, currency: Currency::parse(currency).expect("a currency of ours") },
            start: date(start).expect("a day"),
            end: date(end).expect("a day"),
        };
        store::create(connection, draft)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_a_course_that_the_api_would_take() {
        for &(name, amount_minor, currency, start, end, description) in COURSES {
            let currency = Currency::parse(currency).expect(name);
            let price = serde_json::to_value(Price { amount_minor, currency }).expect("JSON");
            let course = serde_json::json!({
                "name": name, "description": description, "price": price, "start": start, "end": end,
            });
            Draft::read(&course, None).expect(name);
        }
    }
}
