import Testing

@testable import Postgres

@Suite struct PreparedStatementTests {
  @Test func statementsArePreparedOncePerTextAndTypes() async throws {
    try await withConnection { connection in
      let sql = "SELECT $1 AS v"
      for _ in 0..<3 {
        try #expect(connection.query(sql, [.int8(7)]).int64(0, 0) == 7)
        // The same text with other types is another statement; bytes must not be read as the first one's.
        try #expect(connection.query(sql, [.text("8 bytes!")]).text(0, 0) == "8 bytes!")
        try #expect(connection.query(sql, [.int8Array([1])]).int64Array(0, 0) == [1])
      }
      let prepared = "SELECT count(*), count(DISTINCT name) FROM pg_prepared_statements WHERE statement = $1"
      let counts = try connection.queryText(prepared, [.text(sql)]).rows[0]
      #expect(counts == ["3", "3"] && !connection.isPooled)
    }
  }

  @Test func changedResultTypeRecovers() async throws {
    try await withConnection { connection in
      try connection.execute("CREATE TEMP TABLE t AS SELECT 1 AS n")
      let sql = "SELECT * FROM t"
      try #expect(connection.query(sql).columns == ["n"])
      try connection.execute("ALTER TABLE t ADD COLUMN more text DEFAULT 'x'")
      try #expect(connection.query(sql).columns == ["n", "more"])
      try #expect(connection.query(sql).columns == ["n", "more"])
      try connection.execute("ALTER TABLE t ALTER COLUMN n TYPE text")
      // Inside a transaction the error has already ended it; the next try works.
      let error = try postgresError { try connection.transaction { _ = try $0.query(sql) } }
      #expect(error.sqlState == "0A000" && error.remedy == .retry)
      try #expect(connection.transaction { try $0.query(sql).text(0, 0) } == "1")
      let one = "SELECT count(*) FROM pg_prepared_statements WHERE statement = '\(sql)'"
      try #expect(connection.value(one) == "1")
    }
  }

  @Test func otherMissingFeaturesAreNotRetried() async throws {
    try await withConnection { connection in
      let error = try postgresError { _ = try connection.query("SELECT 1 FOR UPDATE OF nothing, LIMIT") }
      #expect(error.remedy == .giveUp)
      let feature = try postgresError {
        try connection.execute("CREATE TEMP TABLE t (a int) INHERITS (pg_class) WITH OIDS")
      }
      #expect(feature.remedy == .giveUp)
      let unsupported = try postgresError {
        try connection.execute("DO $$ BEGIN RAISE EXCEPTION 'not this' USING ERRCODE = '0A000'; END $$")
      }
      #expect(unsupported.sqlState == "0A000" && unsupported.remedy == .giveUp)
    }
  }

  @Test func deallocatedStatementsArePreparedAgain() async throws {
    try await withConnection { connection in
      let sql = "SELECT $1 + 1"
      try #expect(connection.query(sql, [.int8(1)]).int64(0, 0) == 2)
      try connection.execute("DEALLOCATE ALL")
      for n in Int64(2)...3 { try #expect(connection.query(sql, [.int8(n)]).int64(0, 0) == n + 1) }
      try #expect(connection.value("SELECT count(*) FROM pg_prepared_statements") == "1")
      try connection.execute("DISCARD ALL")
      let error = try postgresError { try connection.transaction { _ = try $0.query(sql, [.int8(3)]) } }
      #expect(error.sqlState == "26000" && error.remedy == .retry)
      try #expect(connection.transaction { try $0.query(sql, [.int8(3)]).int64(0, 0) } == 4)
    }
  }

  @Test func numberOfPreparedStatementsIsLimited() async throws {
    try await withConnection { connection in
      for i in 0..<PreparedStatements.limit + 20 {
        try #expect(connection.query("SELECT \(i)").int64(0, 0) == Int64(i))
      }
      let prepared = try connection.value("SELECT count(*) FROM pg_prepared_statements")
      #expect(prepared == "\(PreparedStatements.limit)")
    }
  }
}
