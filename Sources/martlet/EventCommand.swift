import ArgumentParser
import Foundation
import OutboxStore
import Postgres

struct EventCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "event",
    abstract: "Publish an event by hand, show what became of one, or send again.",
    subcommands: [Publish.self, Show.self, Resend.self, Replay.self]
  )

  struct Publish: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Publish one event and print its id.",
      discussion:
        "Applications publish in SQL, in their own transaction: SELECT outbox.publish('order.created', '{…}');"
    )
    @OptionGroup var database: DatabaseOptions
    @Argument(help: "The event's type: order.created") var type: String
    @Argument(help: "The payload, as JSON; - reads it from standard input.") var payload: String
    @Option(help: "For ordered endpoints: events with the same key arrive in order.") var key: String?
    @Option(help: "The tenant it belongs to.") var tenant = ""
    @Option(help: "A JSON object of your own.") var metadata = "{}"
    @Option(help: "Not to be sent earlier: '2026-11-24T03:00Z', 'tomorrow 8:00', as PostgreSQL reads times.")
    var notBefore: String?
    @Option(help: "Publish once: a second time with the same key prints the id of the first, and publishes nothing.")
    var dedupKey: String?
    @Option(help: "For how long --dedup-key holds, as PostgreSQL reads an interval; at most 30 days.")
    var dedupWindow = "24 hours"

    func run() async throws {
      var text = payload
      if text == "-" {
        guard let input = String(validating: FileHandle.standardInput.readDataToEndOfFile(), as: UTF8.self) else {
          throw CommandFailure("The payload was refused: standard input is not valid UTF-8.")
        }
        text = input
      }
      let parameters: [Parameter] = [
        .text(type), .jsonb(text), .text(key), .text(tenant), .jsonb(metadata), .text(dedupKey), .text(dedupWindow),
        .text(notBefore),
      ]
      // No check of the schema's version: a publisher may not read it, and needs not.
      let id = try await database.withStore(requiresSchema: false) { store in
        do {
          let rows = try store.connection.query(
            """
            SELECT outbox.publish($1, $2, $3, $4, $5, not_before => $8::text::timestamptz, dedup_key => $6, \
            dedup_window => $7::text::interval)
            """,
            parameters
          )
          return try rows.required(rows.uuid(0, 0), 0)
        } catch let error as PostgresError {
          throw CommandFailure(publishing: error)
        }
      }
      print(id.uuidString.lowercased())
    }
  }

  struct Show: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "What became of an event: per endpoint, and every attempt."
    )
    @OptionGroup var database: DatabaseOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The event's id.") var id: String
    func validate() throws {
      guard UUID(uuidString: id) != nil else { throw ValidationError("\(id) is not an event's id (a UUID).") }
    }
    func run() async throws {
      try await database.withStore { [output, id] store in
        let event = Parameter.uuid(UUID(uuidString: id))
        do {
          // Asked first: it knows whether there is such an event at all.
          let explained = try store.connection.queryText("SELECT * FROM outbox.explain($1)", [event])
          if output.json {
            return try output.print("SELECT * FROM outbox.explain($1)", [event], from: store, empty: "")
          }
          try output.print(
            "SELECT id, type, tenant, key, created_at, length(payload::text) AS bytes FROM outbox.event WHERE id = $1",
            [event],
            from: store,
            empty: "The event has expired; a dead letter is left of it."
          )
          print("")
          print(
            explained.rows.isEmpty
              ? "No endpoint was subscribed to it."
              : TextTable(columns: explained.columns, rows: explained.rows).description
          )
        } catch let error as PostgresError where error.sqlState == "P0002" {
          throw CommandFailure("There is no event \(id): it was never committed, or is older than the log's retention.")
        }
      }
    }
  }

  struct Resend: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Deliver one event again, under the same webhook-id."
    )
    @OptionGroup var database: DatabaseOptions
    @Argument(help: "The event's id.") var id: String
    @Option(help: "Only to this endpoint. Default: all that are subscribed to it now.") var endpoint: Int64?
    func validate() throws {
      guard UUID(uuidString: id) != nil else { throw ValidationError("\(id) is not an event's id (a UUID).") }
    }
    func run() async throws {
      let count = try await database.withStore { [id, endpoint] store in
        do {
          let rows = try store.connection.query(
            "SELECT outbox.resend($1, $2)",
            [.uuid(UUID(uuidString: id)), .int8(endpoint)]
          )
          return try rows.required(rows.int64(0, 0), 0)
        } catch let error as PostgresError where error.sqlState == "P0002" {
          throw CommandFailure("\(error.message).")
        }
      }
      print("\(count) back to delivery")
    }
  }

  struct Replay: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Deliver the events of a period again, to one endpoint.",
      discussion: "Times as PostgreSQL reads them: '2026-11-24 03:00', 'yesterday', '2026-11-24T03:00Z'."
    )
    @OptionGroup var database: DatabaseOptions
    @Option(help: "The endpoint's id.") var endpoint: Int64
    @Option(help: "The beginning of the period.") var since: String
    @Option(help: "The end of the period. Default: now.") var until: String?
    @Option(name: .customLong("type"), help: "Only these types, as in endpoint add; repeat for several.")
    var types: [String] = []
    func run() async throws {
      let count = try await database.withStore { [endpoint, since, until, types] store in
        do {
          let rows = try store.connection.query(
            "SELECT outbox.replay($1, $2::text::timestamptz, coalesce($3::text::timestamptz, 'infinity'), nullif($4::text[], '{}'))",
            [.int8(endpoint), .text(since), .text(until), .textArray(types)]
          )
          return try rows.required(rows.int64(0, 0), 0)
        } catch let error as PostgresError where ["P0002", "22023", "23514", "22007", "22008"].contains(error.sqlState)
        {
          throw CommandFailure("\(error.detail ?? error.message).")
        }
      }
      print("\(count) back to delivery")
    }
  }
}

extension CommandFailure {
  /// The constraints of the log say what they want in their names.
  fileprivate init(publishing error: PostgresError) {
    switch error.sqlState {
    case "23514": self.init("The event was refused: \(error.message).")
    case "54001": self.init("The payload was refused: it is nested too deeply.")
    case "3F000", "42P01", "42883": self.init("This database has no outbox. Run `martlet migrate` first.")
    case "22007", "22008", "22015": self.init("The event was refused: \(error.message).")
    case "22P02", "22P05", "22021": self.init("The payload was refused: \(error.message). \(error.detail ?? "")")
    default: self.init(error)
    }
  }
}
