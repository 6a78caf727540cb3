import Foundation
import Testing

@testable import Postgres

private struct Changed: Error, Equatable { var mind = "my mind" }

@Suite struct TransactionTests {
  /// A table that outlives connections.
  private func makeTable(_ connection: Connection) throws -> String {
    let table = uniqueName("t")
    try connection.execute("CREATE TABLE \(table) (n int)")
    return table
  }

  private func count(_ table: String) async throws -> Int64? {
    try await withConnection { try $0.query("SELECT count(*) FROM \(table)").int64(0, 0) }
  }

  @Test func commitsWhatReturnsAndRollsBackWhatThrows() async throws {
    let table = try await withConnection { connection in
      let table = try makeTable(connection)
      let value = try connection.transaction { inside in
        #expect(inside.isInTransaction)
        try inside.execute("INSERT INTO \(table) VALUES (1)")
        return 7
      }
      #expect(value == 7 && !connection.isInTransaction)
      #expect(throws: Changed()) {
        try connection.transaction { inside in
          try inside.execute("INSERT INTO \(table) VALUES (2)")
          throw Changed()
        }
      }
      #expect(!connection.isInTransaction && connection.isUsable)
      return table
    }
    try await #expect(count(table) == 1)
  }

  @Test func bodysErrorIsThrownEvenIfTheConnectionIsGone() async throws {
    try await withConnection { connection in
      #expect(throws: Changed()) {
        try connection.transaction { inside in
          try? inside.execute("SELECT pg_terminate_backend(pg_backend_pid())")
          throw Changed()
        }
      }
      #expect(!connection.isUsable)
    }
  }

  @Test func swallowedErrorDoesNotPassForACommit() async throws {
    let table = try await withConnection { connection in
      let table = try makeTable(connection)
      let error = try postgresError {
        try connection.transaction { inside in
          try inside.execute("INSERT INTO \(table) VALUES (1)")
          try? inside.execute("SELECT 1/0")
        }
      }
      #expect(error.sqlState == "25P02" && !error.isCommitUnknown && error.remedy == .giveUp)
      #expect(connection.isUsable && !connection.isInTransaction)
      return table
    }
    try await #expect(count(table) == 0)
  }

  @Test func connectionLostBeforeCommitIsNoUnknownCommit() async throws {
    try await withConnection { connection in
      let error = try postgresError {
        try connection.transaction { try? $0.execute("SELECT pg_terminate_backend(pg_backend_pid())") }
      }
      #expect(error.kind == .connection && !error.isCommitUnknown)
    }
  }

  @Test func deferredConstraintFailsTheCommit() async throws {
    try await withConnection { connection in
      try connection.execute("CREATE TEMP TABLE t (n int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)")
      let error = try postgresError {
        try connection.transaction { try $0.execute("INSERT INTO t VALUES (1), (1)") }
      }
      #expect(error.kind == .server && error.sqlState == "23505" && !error.isCommitUnknown)
      #expect(!connection.isInTransaction)
      try #expect(connection.value("SELECT count(*) FROM t") == "0")
    }
  }

  @Test func transactionsDoNotNest() async throws {
    try await withConnection { connection in
      try connection.execute("CREATE TEMP TABLE t (n int)")
      let error = try postgresError {
        try connection.transaction { outer in
          try outer.execute("INSERT INTO t VALUES (1)")
          try outer.transaction { try $0.execute("INSERT INTO t VALUES (2)") }
        }
      }
      #expect(error.sqlState == "25001")
      try #expect(connection.value("SELECT count(*) FROM t") == "0")
    }
  }

  @Test func bodyThatEndsTheTransactionIsTold() async throws {
    try await withConnection { connection in
      for end in ["COMMIT", "ROLLBACK"] {
        let error = try postgresError { try connection.transaction { try $0.execute(end) } }
        #expect(error.sqlState == "25P01")
      }
      try #expect(connection.value("SELECT 1") == "1")
    }
  }

  @Test(arguments: ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
  func isolationIsAsAskedFor(level: String) async throws {
    try await withConnection { connection in
      let (shown, readOnly) = try connection.transaction(isolation: level + " READ ONLY") { inside in
        try (inside.value("SHOW transaction_isolation"), inside.value("SHOW transaction_read_only"))
      }
      #expect(shown == level.lowercased() && readOnly == "on")
    }
  }

  @Test func serializationFailureIsRetryableOnTheSameConnection() async throws {
    let other = try await Session(.init(connectionString: SharedServer.url))
    let table = try await withConnection { connection in
      let table = try makeTable(connection)
      try connection.execute("INSERT INTO \(table) VALUES (0)")
      return table
    }
    try await withConnection { connection in
      let (rows, written) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
      // Unstructured, because this side stays in a synchronous transaction meanwhile.
      Task.detached {
        rows.wait()
        defer { written.signal() }
        try await other.withConnection { try $0.execute("UPDATE \(table) SET n = 1") }
      }
      var isFirst = true
      func increment() throws {
        try connection.transaction(isolation: "REPEATABLE READ") { inside in
          _ = try inside.query("SELECT n FROM \(table)")
          if isFirst {
            isFirst = false
            rows.signal()
            written.wait()
          }
          try inside.execute("UPDATE \(table) SET n = n + 1")
        }
      }
      let error = try postgresError { try increment() }
      #expect(error.sqlState == "40001" && error.remedy == .retry && !error.isCommitUnknown)
      try increment()
      try #expect(connection.value("SELECT n FROM \(table)") == "2")
    }
  }

  /// COMMIT is made to take long by a trigger that runs in it.
  @Test func commitThatGotNoAnswerIsUnknown() async throws {
    let table = uniqueName("slow")
    let session = try await Session(.init(connectionString: SharedServer.url, applicationName: table))
    try await session.withConnection { connection in
      try connection.execute(
        """
        CREATE TABLE \(table) ();
        CREATE FUNCTION \(table)() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON \(table) DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION \(table)();
        """
      )
    }
    async let failure = session.withConnection { connection in
      try postgresError {
        try connection.transaction { try $0.execute("INSERT INTO \(table) DEFAULT VALUES") }
      }
    }
    try await eventually("COMMIT at work") {
      try await backends("query = 'COMMIT' AND state = 'active' AND application_name = $1", [.text(table)]) == 1
    }
    try await terminate("application_name = $1", [.text(table)])
    let error = try await failure
    #expect(error.kind == .connection && error.isCommitUnknown && error.remedy == .reconnect)
    try await #expect(session.withConnection { try $0.value("SELECT count(*) FROM \(table)") } == "0")
  }
}
