import ArgumentParser
import OutboxStore
import Postgres

struct DeadCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "dead",
    abstract: "Dead letters: list, show, redrive, discard.",
    subcommands: [List.self, Show.self, Redrive.self, Discard.self]
  )

  struct Filter: ParsableArguments {
    @Option(help: "Only of this endpoint.") var endpoint: Int64?
    @Option(help: "Only with this reason: exhausted, gone, expired, rejected or discarded.") var reason: String?
    func validate() throws {
      if let reason, !["exhausted", "gone", "expired", "rejected", "discarded"].contains(reason) {
        throw ValidationError("--reason must be exhausted, gone, expired, rejected or discarded.")
      }
    }
  }

  struct List: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Dead letters, the newest first.")
    @OptionGroup var database: DatabaseOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var filter: Filter
    @Option(help: "At most this many, the newest.") var limit = 50
    func validate() throws {
      guard limit > 0 else { throw ValidationError("--limit must be at least 1.") }
    }
    func run() async throws {
      try await database.withStore { [output, filter, limit] store in
        try output.print(
          """
          SELECT id, died_at::timestamptz(0) AS died_at, endpoint_id, url, event_id, type, reason, attempts, last_status, last_error
          FROM outbox.dead_letter
          WHERE ($1::bigint IS NULL OR endpoint_id = $1) AND (reason = $2 OR ($2 IS NULL AND reason <> 'discarded'))
          ORDER BY id DESC LIMIT $3
          """,
          [.int8(filter.endpoint), .text(filter.reason), .int8(Int64(max(0, limit)))],
          from: store,
          empty: "There are no dead letters."
        )
      }
    }
  }

  struct Show: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "One dead letter, payload included.")
    @OptionGroup var database: DatabaseOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The dead letter's id.") var id: Int64
    func run() async throws {
      try await database.withStore { [output, id] store in
        let sql = "SELECT * FROM outbox.dead_letter WHERE id = $1"
        let (columns, rows) = try store.connection.queryText(sql, [.int8(id)])
        guard let row = rows.first else { throw CommandFailure.unknownDeadLetter(id) }
        if output.json { return try output.print(sql, [.int8(id)], from: store, empty: "") }
        for (name, value) in zip(columns, row) { print("\(name.replacing("_", with: " ")): \(value ?? "-")") }
      }
    }
  }

  struct Redrive: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Deliver again: one dead letter, or all that match.",
      discussion: "Receivers see the same webhook-id as before. Discarded ones are left out unless --reason discarded."
    )
    @OptionGroup var database: DatabaseOptions
    @OptionGroup var filter: Filter
    @Argument(help: "The dead letter's id.") var id: Int64?
    @Flag(help: "All that match --endpoint and --reason.") var all = false
    func validate() throws {
      guard (id != nil) != all else { throw ValidationError("Name a dead letter, or --all.") }
    }
    func run() async throws {
      let count = try await database.withStore { [id, filter] store in
        if let id {
          try unlessUnknown(id) { try store.connection.query("SELECT outbox.redrive($1)", [.int8(id)]) }
          return Int64(1)
        }
        let rows = try store.connection.query(
          "SELECT outbox.redrive_where($1, $2)",
          [.int8(filter.endpoint), .text(filter.reason)]
        )
        return try rows.required(rows.int64(0, 0), 0)
      }
      print("\(count) back to delivery")
    }
  }

  struct Discard: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Mark one as wanted by nobody. It is kept for the record."
    )
    @OptionGroup var database: DatabaseOptions
    @Argument(help: "The dead letter's id.") var id: Int64
    func run() async throws {
      try await database.withStore { [id] store in
        try unlessUnknown(id) { try store.connection.query("SELECT outbox.discard($1)", [.int8(id)]) }
      }
      print("dead letter \(id) is discarded")
    }
  }
}

private func unlessUnknown(_ id: Int64, _ body: () throws -> ResultSet) throws {
  do {
    _ = try body()
  } catch let error as PostgresError where error.sqlState == "P0002" {
    throw CommandFailure.unknownDeadLetter(id)
  }
}

extension CommandFailure {
  static func unknownDeadLetter(_ id: Int64) -> CommandFailure {
    CommandFailure("There is no dead letter \(id). `martlet dead list` shows those there are.")
  }
}
