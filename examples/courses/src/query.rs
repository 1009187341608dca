//! Which courses somebody wants to see: the query of the list, for the API and the page alike.
//!
//! `q` words that must all be there · `from`, `to` the days between which it starts · `currency`, `min_price`,
//! `max_price` · `sort` · `page`, `per_page`. An empty parameter, as forms send them, is none.

use form_urlencoded::Serializer;
use jiff::civil::Date;

use crate::course::date;
use crate::price::{Currency, Price};
use crate::problem::Mistake;

/// Courses a page, unless said.
const PER_PAGE: u32 = 20;
/// The most courses a page.
const MOST_PER_PAGE: u32 = 100;
/// The last page: far behind the last course, and before the offset overflows.
const LAST_PAGE: u32 = 1_000_000;
/// The longest search, in characters.
const LONGEST_SEARCH: usize = 200;

/// What the courses are sorted by; of two that are equal the older one comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The first day.
    Start,
    /// The last day.
    End,
    /// The name.
    Name,
    /// The currency, then the amount.
    Price,
    /// The order they were made in.
    Id,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub key: Key,
    /// The greatest first.
    pub descending: bool,
}

/// Every order by the word it is asked for with, and its name for people. The first is the default.
pub const SORTS: [(&str, &str, Sort); 10] = [
    ("start", "starts soonest", Sort { key: Key::Start, descending: false }),
    ("-start", "starts latest", Sort { key: Key::Start, descending: true }),
    ("end", "ends soonest", Sort { key: Key::End, descending: false }),
    ("-end", "ends latest", Sort { key: Key::End, descending: true }),
    ("name", "name, A to Z", Sort { key: Key::Name, descending: false }),
    ("-name", "name, Z to A", Sort { key: Key::Name, descending: true }),
    ("price", "cheapest", Sort { key: Key::Price, descending: false }),
    ("-price", "dearest", Sort { key: Key::Price, descending: true }),
    ("id", "oldest entry", Sort { key: Key::Id, descending: false }),
    ("-id", "newest entry", Sort { key: Key::Id, descending: true }),
];

/// The query of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The search as it was typed.
    pub q: String,
    /// Starts on this day or later.
    pub from: Option<Date>,
    /// Starts on this day or earlier.
    pub to: Option<Date>,
    /// Is sold in this currency.
    pub currency: Option<Currency>,
    /// Costs at least this, in the currency's smallest units.
    pub min_price: Option<i64>,
    /// Costs at most this, in the currency's smallest units.
    pub max_price: Option<i64>,
    /// The order.
    pub sort: Sort,
    /// The page, from 1.
    pub page: u32,
    /// Courses a page.
    pub per_page: u32,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            q: String::new(),
            from: None,
            to: None,
            currency: None,
            min_price: None,
            max_price: None,
            sort: SORTS[0].2,
            page: 1,
            per_page: PER_PAGE,
        }
    }
}

impl Query {
    /// The query that a URL's part behind `?` says.
    ///
    /// # Errors
    /// Every mistake that is in it.
    pub fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        let mut query = Self::default();
        let mut mistakes = Vec::new();
        let mut prices: [Option<String>; 2] = [None, None];
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let value = value.trim();
            if value.is_empty() {
                continue;
            }
            let read = match &*name {
                "q" => search(value).map(|q| query.q = q),
                "from" => date(value).map(|day| query.from = Some(day)),
                "to" => date(value).map(|day| query.to = Some(day)),
                "currency" => currency(value).map(|currency| query.currency = Some(currency)),
                "min_price" | "max_price" => {
                    prices[usize::from(name == "max_price")] = Some(value.to_owned());
                    Ok(())
                }
                "sort" => sort(value).map(|sort| query.sort = sort),
                "page" => number(value, LAST_PAGE).map(|page| query.page = page),
                "per_page" => number(value, MOST_PER_PAGE).map(|count| query.per_page = count),
                _ => Err("there is no such parameter, only q, from, to, currency, min_price, max_price, sort, page \
                    and per_page"
                    .to_owned()),
            };
            mistakes.extend(read.err().map(|detail| Mistake::parameter(&name, detail)));
        }
        // only with its currency is a price an amount
        let currency_is_wrong = mistakes.iter().any(|mistake| mistake.place() == "?currency");
        let [min, max] = [("min_price", &prices[0]), ("max_price", &prices[1])].map(|(name, text)| {
            let text = text.as_ref()?;
            let amount = match query.currency {
                Some(currency) => currency.amount(text),
                None if currency_is_wrong => return None,
                None => Err("say the currency too, such as currency=EUR".to_owned()),
            };
            amount.map_err(|detail| mistakes.push(Mistake::parameter(name, detail))).ok()
        });
        (query.min_price, query.max_price) = (min, max);
        if let (Some(from), Some(to)) = (query.from, query.to)
            && to < from
        {
            mistakes.push(Mistake::parameter("to", format!("it is before `from`, {from}")));
        }
        if let (Some(min), Some(max)) = (min, max)
            && max < min
        {
            mistakes.push(Mistake::parameter("max_price", "it is below `min_price`"));
        }
        if mistakes.is_empty() { Ok(query) } else { Err(mistakes) }
    }

    /// The words of the search, as they are looked for.
    pub fn words(&self) -> impl Iterator<Item = String> {
        self.q.split_whitespace().map(str::to_lowercase)
    }

    /// The word of its order.
    pub fn sort_word(&self) -> &'static str {
        SORTS.iter().find(|(_, _, sort)| *sort == self.sort).map_or(SORTS[0].0, |(word, ..)| word)
    }

    /// A bound of the price as text, as it can be asked for.
    pub fn price_text(&self, bound: Option<i64>) -> String {
        let price = self.currency.zip(bound).map(|(currency, amount_minor)| Price { amount_minor, currency });
        price.map_or_else(String::new, |price| price.amount())
    }

    /// The same query for another page, to be put behind `?`; what is as by default is left out.
    pub fn for_page(&self, page: u32) -> String {
        let mut text = Serializer::new(String::new());
        let default = Self::default();
        let mut pair = |name: &str, value: String| {
            if !value.is_empty() {
                text.append_pair(name, &value);
            }
        };
        pair("q", self.q.clone());
        pair("from", self.from.map(|day| day.to_string()).unwrap_or_default());
        pair("to", self.to.map(|day| day.to_string()).unwrap_or_default());
        pair("currency", self.currency.map(|currency| currency.code().to_owned()).unwrap_or_default());
        pair("min_price", self.price_text(self.min_price));
        pair("max_price", self.price_text(self.max_price));
        pair("sort", if self.sort == default.sort { String::new() } else { self.sort_word().to_owned() });
        pair("per_page", if self.per_page == default.per_page { String::new() } else { self.per_page.to_string() });
        pair("page", page.to_string());
        text.finish()
    }
}

fn search(text: &str) -> Result<String, String> {
    match text.chars().count() {
        length if length > LONGEST_SEARCH => Err(format!("it has {length} characters: use at most {LONGEST_SEARCH}")),
        _ => Ok(text.to_owned()),
    }
}

fn currency(text: &str) -> Result<Currency, String> {
    Currency::parse(text).ok_or_else(|| format!("use one of {}", Currency::all().collect::<Vec<_>>().join(", ")))
}

fn sort(text: &str) -> Result<Sort, String> {
    let found = SORTS.iter().find(|(word, ..)| *word == text).map(|(_, _, sort)| *sort);
    found.ok_or_else(|| format!("use one of {}", SORTS.map(|(word, ..)| word).join(", ")))
}

fn number(text: &str, most: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("use a number from 1 to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let mistakes = Query::parse(text).err().unwrap_or_default();
        let places: Vec<String> = mistakes.iter().map(Mistake::place).collect();
        assert_eq!(places, expected, "{text}: {mistakes:?}");
    }

    #[test]
    fn every_wrong_parameter_is_named() {
        check("", &[]);
        check("q=&from=&sort=&currency=&max_price=", &[]);
        check("q=rust&from=2027-01-01&to=2027-01-01&sort=-price&page=2&per_page=100", &[]);
        check("currency=EUR&min_price=10&max_price=49.90", &[]);
        check("max_price=10", &["?max_price"]);
        check("max_price=10&currency=X", &["?currency"]);
        check("currency=JPY&min_price=1.5", &["?min_price"]);
        check("currency=EUR&min_price=2&max_price=1", &["?max_price"]);
        check("page=0&per_page=101&sort=up&from=soon&colour=red", &["?page", "?per_page", "?sort", "?from", "?colour"]);
        check("from=2027-01-02&to=2027-01-01", &["?to"]);
        check("page=4294967296", &["?page"]);
    }

    #[test]
    fn queries_come_back() {
        let text = "q=a+%26+b%3F&from=2027-01-01&currency=EUR&max_price=49.90&sort=-price&per_page=5&page=3";
        let query = Query::parse(text).expect("a query");
        assert_eq!(query.for_page(3), text);
        assert_eq!(Query::default().for_page(1), "page=1");
    }
}
