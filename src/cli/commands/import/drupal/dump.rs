//! Reads the rows of some tables from an SQL dump: of `mysqldump` and `drush sql-dump`, of
//! `pg_dump`, and of SQLite's `.dump`.

use std::{collections::HashMap, io::Read, sync::Arc};

use super::{
    lexer::{Lexer, Token, unescape},
    row::{Cell, Row},
};

/// The maximum number of columns of a table.
const MAX_COLUMNS: usize = 512;

/// A reader of the rows of a dump.
pub(super) struct Dump<R> {
    lexer: Lexer<R>,
    tables: Vec<Arc<str>>,
    prefix: String,
    /// The columns of the tables, from the statements that create them.
    columns: HashMap<Arc<str>, Arc<[String]>>,
    state: State,
}

enum State {
    Between,
    /// Within the rows of an `INSERT`.
    Insert(Arc<str>, Arc<[String]>),
    /// Within the lines of a `COPY`.
    Copy(Arc<str>, Arc<[String]>),
}

impl<R: Read> Dump<R> {
    pub fn new(reader: R, tables: Vec<Arc<str>>, prefix: String) -> Self {
        let lexer = Lexer::new(reader);
        Self { lexer, tables, prefix, columns: HashMap::new(), state: State::Between }
    }

    /// Reads a row. `None` means that there are no more.
    pub fn next(&mut self) -> Result<Option<Row>, String> {
        loop {
            let row = match &self.state {
                State::Between => {
                    if !self.next_statement()? {
                        return Ok(None);
                    }
                    continue;
                }
                State::Insert(table, columns) => {
                    let (table, columns) = (table.clone(), columns.clone());
                    self.inserted_row(table, columns)?
                }
                State::Copy(table, columns) => {
                    let (table, columns) = (table.clone(), columns.clone());
                    self.copied_row(table, columns)?
                }
            };
            match row {
                Some(row) => return Ok(Some(row)),
                None => self.state = State::Between,
            }
        }
    }

    /// Reads a token.
    fn token(&mut self) -> Result<Option<Token>, String> {
        let line = self.lexer.line();
        self.lexer.token().map_err(|problem| format!("line {line}: {problem}"))
    }

    fn skip_statement(&mut self) -> Result<(), String> {
        let line = self.lexer.line();
        self.lexer.skip_statement().map_err(|problem| format!("line {line}: {problem}"))
    }

    /// Reads the beginning of a statement. `false` means the end of the dump.
    fn next_statement(&mut self) -> Result<bool, String> {
        let word = match self.token()? {
            None => return Ok(false),
            Some(Token::Symbol(b';')) => return Ok(true),
            Some(Token::Word(word)) => word.to_ascii_uppercase(),
            Some(_) => String::new(),
        };
        match word.as_str() {
            "INSERT" | "REPLACE" => self.begin_insert()?,
            "CREATE" => self.read_create()?,
            "COPY" => self.begin_copy()?,
            _ => self.skip_statement()?,
        }
        Ok(true)
    }

    /// The wanted table of this name. `None` means that the table is not wanted.
    fn wanted(&self, name: &str) -> Option<Arc<str>> {
        let name = name.rsplit('.').next()?.strip_prefix(self.prefix.as_str())?;
        self.tables.iter().find(|table| ***table == *name).cloned()
    }

    fn begin_insert(&mut self) -> Result<(), String> {
        let mut table = None;
        let mut columns = None;
        loop {
            match self.token()? {
                Some(Token::Symbol(b'(')) => columns = Some(self.names()?),
                Some(Token::Word(word)) if word.eq_ignore_ascii_case("VALUES") => break,
                Some(Token::Word(word)) if word.eq_ignore_ascii_case("SELECT") => {
                    return self.skip_statement();
                }
                Some(Token::Word(name) | Token::Name(name)) if columns.is_none() => {
                    table = self.wanted(&name).or(table);
                }
                None | Some(Token::Symbol(b';')) => return Ok(()),
                Some(_) => {}
            }
        }
        let Some(table) = table else { return self.skip_statement() };
        let known = columns.map(Arc::from).or_else(|| self.columns.get(&table).cloned());
        let Some(columns) = known else {
            return Err(format!(
                "line {}: the columns of {table} are not known: dump the table with its definition",
                self.lexer.line()
            ));
        };
        self.state = State::Insert(table, columns);
        Ok(())
    }

    /// Reads names up to the closing parenthesis.
    fn names(&mut self) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        loop {
            match self.token()? {
                Some(Token::Word(name) | Token::Name(name)) if names.len() < MAX_COLUMNS => {
                    names.push(name.to_lowercase());
                }
                None | Some(Token::Symbol(b')')) => return Ok(names),
                Some(_) => {}
            }
        }
    }

    /// Reads the names of the columns from the definition of a table.
    fn read_create(&mut self) -> Result<(), String> {
        let mut table = None;
        loop {
            match self.token()? {
                Some(Token::Symbol(b'(')) => break,
                Some(Token::Word(name) | Token::Name(name)) => {
                    table = self.wanted(&name).or(table);
                }
                None | Some(Token::Symbol(b';')) => return Ok(()),
                Some(_) => {}
            }
        }
        let Some(table) = table else { return self.skip_statement() };
        let mut columns = Vec::new();
        let (mut depth, mut is_first) = (1, true);
        while depth > 0 {
            match self.token()? {
                Some(Token::Symbol(b'(')) => depth += 1,
                Some(Token::Symbol(b')')) => depth -= 1,
                Some(Token::Symbol(b',')) if depth == 1 => {
                    is_first = true;
                    continue;
                }
                Some(Token::Name(name)) if is_first && columns.len() < MAX_COLUMNS => {
                    columns.push(name.to_lowercase());
                }
                Some(Token::Word(word)) if is_first && columns.len() < MAX_COLUMNS => {
                    const OTHER: &[&str] = &[
                        "PRIMARY",
                        "KEY",
                        "UNIQUE",
                        "CONSTRAINT",
                        "FULLTEXT",
                        "SPATIAL",
                        "INDEX",
                        "FOREIGN",
                        "CHECK",
                        "EXCLUDE",
                        "LIKE",
                    ];
                    if !OTHER.contains(&word.to_ascii_uppercase().as_str()) {
                        columns.push(word.to_lowercase());
                    }
                }
                None => return Ok(()),
                Some(_) => {}
            }
            is_first = false;
        }
        self.columns.insert(table, columns.into());
        self.skip_statement()
    }

    /// Reads a row of an `INSERT`. `None` means the end of the statement.
    fn inserted_row(
        &mut self,
        table: Arc<str>,
        columns: Arc<[String]>,
    ) -> Result<Option<Row>, String> {
        loop {
            let line = self.lexer.line();
            match self.token()? {
                Some(Token::Symbol(b'(')) => {
                    let cells = self.cells()?;
                    if cells.len() != columns.len() {
                        return Err(format!(
                            "line {line}: a row of {table} has {} values, but the table has {} \
                             columns",
                            cells.len(),
                            columns.len()
                        ));
                    }
                    return Ok(Some(Row { table, line, columns, cells }));
                }
                Some(Token::Symbol(b',')) => {}
                None | Some(Token::Symbol(b';')) => return Ok(None),
                Some(_) => {
                    self.skip_statement()?;
                    return Ok(None);
                }
            }
        }
    }

    /// Reads the values of a row up to the closing parenthesis.
    fn cells(&mut self) -> Result<Vec<Cell>, String> {
        let mut cells = Vec::new();
        let mut cell = None;
        let mut depth = 1;
        loop {
            let token = self.token()?;
            match token {
                None => return Err("the file ends within a row".into()),
                Some(Token::Symbol(b'(')) => {
                    depth += 1;
                    cell = Some(Cell::Unreadable);
                }
                Some(Token::Symbol(b')')) if depth > 1 => depth -= 1,
                Some(Token::Symbol(end @ (b',' | b')'))) if depth == 1 => {
                    if cells.len() < MAX_COLUMNS {
                        cells.push(cell.take().unwrap_or(Cell::Unreadable));
                    }
                    if end == b')' {
                        return Ok(cells);
                    }
                }
                // A cast may follow the value.
                Some(_) if cell.is_some() || depth > 1 => {}
                Some(token) => cell = Some(cell_of(token)),
            }
        }
    }

    fn begin_copy(&mut self) -> Result<(), String> {
        let (mut table, mut columns) = (None, Vec::new());
        let mut is_from_stdin = false;
        loop {
            match self.token()? {
                Some(Token::Symbol(b'(')) => columns = self.names()?,
                Some(Token::Word(word)) if word.eq_ignore_ascii_case("STDIN") => {
                    is_from_stdin = true;
                }
                Some(Token::Word(name) | Token::Name(name)) if columns.is_empty() => {
                    table = self.wanted(&name).or(table);
                }
                None | Some(Token::Symbol(b';')) => break,
                Some(_) => {}
            }
        }
        if !is_from_stdin {
            return Ok(());
        }
        // The rest of the line of the statement.
        self.raw_line()?;
        match table {
            Some(table) => self.state = State::Copy(table, columns.into()),
            None => while self.raw_line()?.is_some_and(|line| line.as_deref() != Some(b"\\.")) {},
        }
        Ok(())
    }

    fn raw_line(&mut self) -> Result<Option<Option<Vec<u8>>>, String> {
        let number = self.lexer.line();
        self.lexer.raw_line().map_err(|problem| format!("line {number}: {problem}"))
    }

    /// Reads a row of a `COPY`. `None` means the end of the rows.
    fn copied_row(
        &mut self,
        table: Arc<str>,
        columns: Arc<[String]>,
    ) -> Result<Option<Row>, String> {
        let number = self.lexer.line();
        let line = match self.raw_line()? {
            None => return Ok(None),
            Some(None) => return Err(format!("line {number}: the line is too long")),
            Some(Some(line)) => line,
        };
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line == b"\\." {
            return Ok(None);
        }
        let cells: Vec<Cell> = line.split(|byte| *byte == b'\t').map(copied_cell).collect();
        if cells.len() != columns.len() {
            return Err(format!("line {number}: a row of {table} has another number of values"));
        }
        Ok(Some(Row { table, line: number, columns, cells }))
    }
}

fn cell_of(token: Token) -> Cell {
    match token {
        Token::Text(Some(bytes)) => Cell::Bytes(bytes),
        Token::Text(None) | Token::Symbol(_) => Cell::Unreadable,
        Token::Name(text) => Cell::Bytes(text.into_bytes()),
        Token::Word(word) => match word.to_ascii_uppercase().as_str() {
            "NULL" | "DEFAULT" => Cell::Null,
            "TRUE" => Cell::Bytes(b"1".to_vec()),
            "FALSE" => Cell::Bytes(b"0".to_vec()),
            upper => match upper.strip_prefix("0X") {
                Some(digits) => hex::decode(digits).map_or(Cell::Unreadable, Cell::Bytes),
                None => Cell::Bytes(word.into_bytes()),
            },
        },
    }
}

/// A value of a `COPY`, in which a backslash begins an escape.
fn copied_cell(bytes: &[u8]) -> Cell {
    if bytes == b"\\N" {
        return Cell::Null;
    }
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        match (*byte, byte) {
            (b'\\', _) => text.extend(rest.next().map(|escaped| unescape(*escaped))),
            (byte, _) => text.push(byte),
        }
    }
    Cell::Bytes(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rows = Vec<(u64, Vec<Option<String>>)>;

    fn rows(sql: &str, prefix: &str) -> Result<Rows, String> {
        let tables = vec![Arc::from("users"), Arc::from("users_field_data")];
        let mut dump = Dump::new(sql.as_bytes(), tables, prefix.to_owned());
        let mut rows = Vec::new();
        while let Some(row) = dump.next()? {
            let text = |name| row.text(name).unwrap().map(str::to_owned);
            rows.push((row.line, vec![text("uid"), text("name"), text("mail")]));
        }
        Ok(rows)
    }

    fn row(line: u64, uid: &str, name: &str, mail: Option<&str>) -> (u64, Vec<Option<String>>) {
        (line, vec![Some(uid.into()), Some(name.into()), mail.map(str::to_owned)])
    }

    #[test]
    fn dump_of_mysql_is_read() {
        let sql = "-- MySQL dump 10.13\nDROP TABLE IF EXISTS `cache`;\n\
            INSERT INTO `cache` VALUES ('a;b','it\\'s'),(_binary 'x','y');\n\
            CREATE TABLE `users_field_data` (\n  `uid` int(10) unsigned NOT NULL,\n  `name` varchar(60) DEFAULT 'a,(b',\n  `mail` varchar(254) DEFAULT NULL,\n  PRIMARY KEY (`uid`,`name`),\n  KEY `x` (`mail`(191))\n) ENGINE=InnoDB COMMENT='x;y';\n\
            INSERT INTO `users_field_data` VALUES (1,'it\\'s','a@b'),(2,'b;''c',NULL);\n\
            INSERT INTO `users_field_data` (`name`,`uid`) VALUES\n('d',3);\n";
        let expected = vec![
            row(11, "1", "it's", Some("a@b")),
            row(11, "2", "b;'c", None),
            row(12, "3", "d", None),
        ];
        assert_eq!(rows(sql, ""), Ok(expected));
    }

    #[test]
    fn dumps_of_postgresql_and_sqlite_are_read() {
        let sql = "--\n-- PostgreSQL database dump\n--\nSET x = 'a';\n\
            COPY public.cache (a) FROM stdin;\nINSERT INTO users_field_data VALUES (9);\n\\.\n\
            COPY public.users_field_data (uid, name, mail) FROM stdin;\n1\ta\\tb\\\\c\t\\N\n2\td\te@f\n\\.\n\n\
            INSERT INTO public.users_field_data (uid, name, mail) VALUES (3, 'a\\b', 'c@d'::text);\n";
        let expected = vec![
            row(9, "1", "a\tb\\c", None),
            row(10, "2", "d", Some("e@f")),
            row(13, "3", "a\\b", Some("c@d")),
        ];
        assert_eq!(rows(sql, ""), Ok(expected));
        let sql = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n\
            CREATE TABLE IF NOT EXISTS \"users_field_data\" (\"uid\" INTEGER NOT NULL CHECK (uid>= 0), \"name\" VARCHAR(60), mail TEXT, PRIMARY KEY (\"uid\"));\n\
            INSERT INTO users_field_data VALUES(1,'a\\b','c@d');\n";
        assert_eq!(rows(sql, ""), Ok(vec![row(4, "1", "a\\b", Some("c@d"))]));
    }

    #[test]
    fn prefix_of_the_tables_counts() {
        let sql = "INSERT INTO `d_users_field_data` (`uid`,`name`) VALUES (1,'a');\n\
            INSERT INTO `users_field_data` (`uid`,`name`) VALUES (2,'b');\n";
        assert_eq!(rows(sql, "d_"), Ok(vec![row(1, "1", "a", None)]));
        assert_eq!(rows(sql, ""), Ok(vec![row(2, "2", "b", None)]));
    }

    #[test]
    fn hostile_dumps_are_refused_or_harmless() {
        let deep = format!(
            "INSERT INTO `users` (`uid`) VALUES ({}1{});",
            "(".repeat(100_000),
            ")".repeat(100_000)
        );
        for (sql, expected) in [
            ("INSERT INTO `users_field_data` VALUES (1,'a');", "not known"),
            ("INSERT INTO `users_field_data` (`uid`) VALUES (1,'a');", "columns"),
            ("INSERT INTO `users_field_data` (`uid`) VALUES ('a", "ends within"),
            ("INSERT INTO `users_field_data` (`uid`) VALUES (1", "ends within"),
        ] {
            let problem = rows(sql, "").unwrap_err();
            assert!(problem.contains(expected), "{sql}: {problem}");
        }
        let mut dump = Dump::new(deep.as_bytes(), vec![Arc::from("users")], String::new());
        assert_eq!(dump.next().unwrap().unwrap().cells, [Cell::Unreadable]);
        assert!(dump.next().unwrap().is_none());
        for text in ["", ";;;", "(((", "COPY users FROM stdin;", "CREATE TABLE users (", "INSERT"] {
            assert_eq!(rows(text, ""), Ok(vec![]), "{text}");
        }
    }
}
