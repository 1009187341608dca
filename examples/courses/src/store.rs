//! Courses in the database: what is asked of it, in its own words.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params, params_from_iter};

use crate::course::{Course, Draft};
use crate::price::{Currency, Price};
use crate::problem::Mistake;
use crate::query::{Key, Query};

const COLUMNS: &str = "id, version, name, description, amount_minor, currency, start_day, end_day";

/// A page of a list.
#[derive(Debug)]
pub struct Listed {
    /// The page's courses.
    pub courses: Vec<Course>,
    /// How many fit the query on all pages.
    pub total: u64,
}

/// What came of changing a course.
#[derive(Debug)]
pub enum Changed {
    /// It is changed: as it is now.
    Done(Course),
    /// There is none.
    NoCourse,
    /// It is not what whoever asked had seen: as it is now.
    Meanwhile(Course),
    /// It would not be a course.
    Mistakes(Vec<Mistake>),
    /// Another course has this name and start.
    Twice,
}

/// The courses that fit a query, one page of them.
///
/// # Errors
/// SQLite's.
pub fn list(connection: &Connection, query: &Query) -> rusqlite::Result<Listed> {
    let mut conditions = vec!["1".to_owned()];
    let mut values: Vec<Value> = Vec::new();
    let mut condition = |sql: &str, value: Value| {
        conditions.push(sql.to_owned());
        values.push(value);
    };
    for word in query.words() {
        condition("instr(search, ?) > 0", Value::Text(word));
    }
    if let Some(from) = query.from {
        condition("start_day >= ?", Value::Text(from.to_string()));
    }
    if let Some(to) = query.to {
        condition("start_day <= ?", Value::Text(to.to_string()));
    }
    if let Some(currency) = query.currency {
        condition("currency = ?", Value::Text(currency.code().to_owned()));
    }
    if let Some(min) = query.min_price {
        condition("amount_minor >= ?", Value::Integer(min));
    }
    if let Some(max) = query.max_price {
        condition("amount_minor <= ?", Value::Integer(max));
    }
    let conditions = conditions.join(" AND ");
    let total: i64 = connection.query_row(
        &format!("SELECT count(*) FROM courses WHERE {conditions}"),
        params_from_iter(&values),
        |row| row.get(0),
    )?;
    let direction = if query.sort.descending { "DESC" } else { "ASC" };
    let order = match query.sort.key {
        Key::Start => format!("start_day {direction}"),
        Key::End => format!("end_day {direction}"),
        Key::Name => format!("name COLLATE NOCASE {direction}"),
        Key::Price => format!("currency, amount_minor {direction}"),
        Key::Id => format!("id {direction}"),
    };
    values.push(Value::Integer(query.per_page.into()));
    values.push(Value::Integer(i64::from(query.page - 1) * i64::from(query.per_page)));
    let sql = format!("SELECT {COLUMNS} FROM courses WHERE {conditions} ORDER BY {order}, id LIMIT ? OFFSET ?");
    let mut statement = connection.prepare(&sql)?;
    let courses = statement.query_map(params_from_iter(&values), read)?.collect::<Result<_, _>>()?;
    Ok(Listed { courses, total: total.unsigned_abs() })
}

/// One course.
///
/// # Errors
/// SQLite's.
pub fn get(connection: &Connection, id: i64) -> rusqlite::Result<Option<Course>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM courses WHERE id = ?"))?;
    statement.query_row([id], read).optional()
}

/// Adds a course.
///
/// # Errors
/// SQLite's.
pub fn create(connection: &Connection, draft: Draft) -> rusqlite::Result<Changed> {
    let sql = "INSERT INTO courses (name, description, amount_minor, currency, start_day, end_day, search)
               VALUES (?, ?, ?, ?, ?, ?, ?)";
    let mut statement = connection.prepare_cached(sql)?;
    let inserted = statement.insert(params![
        draft.name,
        draft.description,
        draft.price.amount_minor,
        draft.price.currency.code(),
        draft.start.to_string(),
        draft.end.to_string(),
        search_text(&draft),
    ]);
    match inserted {
        Ok(id) => Ok(Changed::Done(Course { id, draft, version: 1 })),
        Err(error) if is_twice(&error) => Ok(Changed::Twice),
        Err(error) => Err(error),
    }
}

/// Changes a course that is still what whoever asks has seen, by `accepts`.
///
/// # Errors
/// SQLite's.
pub fn change(
    connection: &mut Connection,
    id: i64,
    accepts: impl FnOnce(&Course) -> bool,
    edit: impl FnOnce(&Draft) -> Result<Draft, Vec<Mistake>>,
) -> rusqlite::Result<Changed> {
    let transaction = immediate(connection)?;
    let Some(course) = get(&transaction, id)? else { return Ok(Changed::NoCourse) };
    if !accepts(&course) {
        return Ok(Changed::Meanwhile(course));
    }
    let draft = match edit(&course.draft) {
        // nothing to write, and no new version of the same
        Ok(draft) if draft == course.draft => return Ok(Changed::Done(course)),
        Ok(draft) => draft,
        Err(mistakes) => return Ok(Changed::Mistakes(mistakes)),
    };
    let sql = "UPDATE courses SET version = ?, name = ?, description = ?, amount_minor = ?, currency = ?,
               start_day = ?, end_day = ?, search = ? WHERE id = ?";
    let version = course.version + 1;
    let updated = transaction.prepare_cached(sql)?.execute(params![
        version,
        draft.name,
        draft.description,
        draft.price.amount_minor,
        draft.price.currency.code(),
        draft.start.to_string(),
        draft.end.to_string(),
        search_text(&draft),
        id,
    ]);
    match updated {
        Ok(_) => {}
        Err(error) if is_twice(&error) => return Ok(Changed::Twice),
        Err(error) => return Err(error),
    }
    transaction.commit()?;
    Ok(Changed::Done(Course { id, draft, version }))
}

/// Deletes a course that is still what whoever asks has seen, by `accepts`; tells what it was.
///
/// # Errors
/// SQLite's.
pub fn delete(
    connection: &mut Connection,
    id: i64,
    accepts: impl FnOnce(&Course) -> bool,
) -> rusqlite::Result<Changed> {
    let transaction = immediate(connection)?;
    let Some(course) = get(&transaction, id)? else { return Ok(Changed::NoCourse) };
    if !accepts(&course) {
        return Ok(Changed::Meanwhile(course));
    }
    transaction.execute("DELETE FROM courses WHERE id = ?", [id])?;
    transaction.commit()?;
    Ok(Changed::Done(course))
}

/// Whether the database can be read; for the health check.
///
/// # Errors
/// SQLite's.
pub fn check(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("SELECT count(*) FROM courses", [], |_| Ok(()))
}

/// Another process must not come between what is read and what is written.
fn immediate(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn search_text(draft: &Draft) -> String {
    format!("{}\n{}", draft.name, draft.description).to_lowercase()
}

fn is_twice(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Course> {
    let unreadable = |column: usize, what: String| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what.into())
    };
    let day = |column: usize| {
        let text: String = row.get(column)?;
        text.parse().map_err(|error: jiff::Error| unreadable(column, error.to_string()))
    };
    let code: String = row.get(5)?;
    let currency = Currency::parse(&code).ok_or_else(|| unreadable(5, format!("{code:?} is no currency")))?;
    Ok(Course {
        id: row.get(0)?,
        version: row.get(1)?,
        draft: Draft {
            name: row.get(2)?,
            description: row.get(3)?,
            price: Price { amount_minor: row.get(4)?, currency },
            start: day(6)?,
            end: day(7)?,
        },
    })
}
