//! What a test sees of the rows in SQL.

use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::{Backend, Classroom, SOON, until};

impl Backend {
    /// Runs a query. Returns a line for each row, with its columns divided by `|`, and null as an empty column. The
    /// tables of PROTOCOL 5 have the same names in both databases, so one query works on both.
    pub(crate) async fn rows(&self, query: &str) -> Vec<String> {
        match &self.servers {
            Some(servers) => postgres(&servers.postgres, query).await,
            None => sqlite(&self.gateway.folder().join("rollcall.db"), query),
        }
    }

    /// Changes rows without the gateway's knowledge.
    pub(crate) async fn write(&self, statement: &str) {
        match &self.servers {
            Some(servers) => drop(postgres(&servers.postgres, statement).await),
            None => {
                let connection = rusqlite::Connection::open(self.gateway.folder().join("rollcall.db")).unwrap();
                connection.busy_timeout(SOON).unwrap();
                connection.execute_batch(statement).unwrap();
            }
        }
    }

    /// Runs a query that returns one value.
    pub(crate) async fn value(&self, query: &str) -> String {
        let rows = self.rows(query).await;
        let [value] = rows.try_into().unwrap_or_else(|rows| panic!("{query}: {rows:?}"));
        value
    }

    /// Waits until a query returns these rows.
    pub(crate) async fn wait_for_rows(&self, query: &str, wanted: &[&str]) {
        until(query, SOON, async || self.rows(query).await, |rows| rows == wanted).await;
    }

    /// Returns the live sessions of a classroom: `{id}|{agent_id}`, ascending.
    pub(crate) async fn live(&self, room: &Classroom) -> Vec<String> {
        let id = &room.id;
        self.rows(&format!("select id, agent_id from agent_session where classroom_id = '{id}' order by id")).await
    }

    /// Returns the history of a classroom: `{id}|{agent_id}|{reason}`, ascending.
    pub(crate) async fn history(&self, room: &Classroom) -> Vec<String> {
        let id = &room.id;
        let query =
            format!("select id, agent_id, reason from agent_session_history where classroom_id = '{id}' order by id");
        self.rows(&query).await
    }

    /// Returns the UUID that was made with the database.
    pub(crate) async fn installation(&self) -> String {
        self.value("select id from installation").await
    }
}

async fn postgres(url: &str, query: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let messages = client.simple_query(query).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let columns = (0..row.len()).map(|column| row.get(column).unwrap_or_default());
            Some(columns.collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    let rows = rows.collect();
    drop(client);
    connection.await.unwrap().unwrap();
    rows
}

fn sqlite(file: &std::path::Path, query: &str) -> Vec<String> {
    use rusqlite::{Connection, OpenFlags, types::ValueRef};
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.busy_timeout(SOON).unwrap();
    let mut statement = connection.prepare(query).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let texts = (0..columns).map(|column| {
            Ok(match row.get_ref(column)? {
                ValueRef::Null => String::new(),
                ValueRef::Integer(number) => number.to_string(),
                ValueRef::Real(number) => number.to_string(),
                ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
            })
        });
        Ok(texts.collect::<rusqlite::Result<Vec<_>>>()?.join("|"))
    });
    rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
}
