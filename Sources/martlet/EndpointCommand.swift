import ArgumentParser
import HTTPDelivery
import OutboxStore
import Postgres
import WebhookSignature

struct EndpointCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "endpoint",
    abstract: "Where to deliver: add, list, show, ping, pause, resume, disable, rotate-secret, delete.",
    subcommands: [
      Add.self, List.self, Show.self, Ping.self, Pause.self, Resume.self, Disable.self, RotateSecret.self, Delete.self,
    ]
  )

  struct Add: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Add an endpoint. Prints its id and, this once, its signing secret."
    )
    @OptionGroup var database: DatabaseOptions
    @OptionGroup var egress: EgressOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "https://…") var url: String
    @Option(
      name: .customLong("type"),
      help: "An event type (order.created), a prefix (order.*), or *; repeat for several. Default: *"
    )
    var types: [String] = []
    @Option(
      help: ArgumentHelp(
        "A SQL/JSON path over {type, tenant, key, payload, metadata}; only events it matches: '$.payload.total > 100'",
        valueName: "jsonpath"
      )
    )
    var filter: String?
    @Option(help: "Only events of this tenant.") var tenant = ""
    @Option(help: "whsec_… (HMAC) or whsk_… (ed25519). Default: a new one.") var secret: String?
    @Flag(help: "Deliver events with the same key in the order of their commits.") var ordered = false
    @Option(
      help: """
        The body: standard {"type","timestamp","data"}, cloudevents (structured 1.0), raw (the payload alone) or classic \
        {"event","data"}.
        """
    )
    var format = "standard"
    @Option(name: .customLong("header"), help: "\"Name: value\", sent with every request; repeat for several.")
    var headers: [String] = []
    @Option(help: "Seconds for the whole exchange.") var timeout = 15.0
    @Option(help: "Attempts before it becomes a dead letter.") var maxAttempts = 15
    @Option(help: "Requests to it at a time.") var maxInFlight = 32

    func validate() throws {
      guard timeout.isFinite, (0.05...300).contains(timeout) else {
        throw ValidationError("--timeout must be 0.05 to 300 seconds.")
      }
      guard (1...1000).contains(maxAttempts) else { throw ValidationError("--max-attempts must be 1 to 1000.") }
      guard (1...10_000).contains(maxInFlight) else { throw ValidationError("--max-in-flight must be 1 to 10000.") }
      guard ["standard", "cloudevents", "raw", "classic"].contains(format) else {
        throw ValidationError("--format must be standard, cloudevents, raw or classic.")
      }
      for header in headers where !header.contains(":") {
        throw ValidationError("--header \"\(header)\" is not of the form \"Name: value\".")
      }
      _ = try egress.policy()
    }

    func run() async throws {
      do {
        _ = try WebhookURL(validating: url, policy: try egress.policy())
      } catch let error as WebhookURLError {
        throw CommandFailure("The URL is not usable: \(error)")
      }
      let secret = secret ?? SigningKey.generate().encoded
      do {
        _ = try SigningKey(parsing: secret)
      } catch {
        throw CommandFailure("The secret is not usable: \(error)")
      }
      let names = headers.map { String($0.prefix { $0 != ":" }) }
      let values = headers.map { $0.drop { $0 != ":" }.dropFirst().drop { $0 == " " } }.map(String.init)
      for (name, value) in zip(names, values) {
        if let problem = HTTPHeader.problem(name: name, value: value) { throw CommandFailure(problem) }
      }
      let parameters: [Parameter] = [
        .text(url), .textArray(types.isEmpty ? ["*"] : types), .text(tenant), .text(secret), .bool(ordered),
        .text(format),
        .textArray(names), .textArray(values), .float8(timeout), .int4(Int32(clamping: maxAttempts)),
        .int4(Int32(clamping: maxInFlight)), .text(filter),
      ]
      let id = try await database.withStore { store in
        let rows = try store.connection.query(
          """
          SELECT outbox.add_endpoint($1, $2, $3, $4, $5, $6, headers => jsonb_object($7::text[], $8::text[]),
            timeout => $9 * interval '1 s', max_attempts => $10, max_in_flight => $11, filter => $12::text::jsonpath)
          """,
          parameters
        )
        return try rows.required(rows.int64(0, 0), 0)
      }
      if output.json {
        print(#"{"id":\#(id),"secret":"\#(secret)"}"#)
      } else {
        print("endpoint \(id)")
        print("secret \(secret)  (give it to the receiver; it is not shown again)")
      }
    }
  }

  struct List: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "All endpoints, with their health.")
    @OptionGroup var database: DatabaseOptions
    @OptionGroup var output: OutputOptions
    func run() async throws {
      try await database.withStore { [output] store in
        try output.print(
          """
          SELECT id, tenant, url, array_to_string(event_types, ' ') AS types, state, circuit, waiting, dead_letters,
            failing_since::timestamptz(0) AS failing_since, last_error
          FROM outbox.endpoint_status ORDER BY id
          """,
          from: store,
          empty: "There are no endpoints. Add one: martlet endpoint add https://…"
        )
      }
    }
  }

  struct Show: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Everything about one endpoint, but for its secrets.")
    @OptionGroup var database: DatabaseOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The endpoint's id.") var id: Int64
    func run() async throws {
      try await database.withStore { [output, id] store in
        let sql = """
          SELECT e.*, s.circuit, s.consecutive_failures, s.failing_since, s.last_error, s.probe_at, s.waiting, s.dead_letters,
            s.filter_failures, s.filter_failed_at, s.filter_error,
            (SELECT count(*) FROM outbox.endpoint_secret x WHERE x.endpoint_id = e.id) AS secrets
          FROM outbox.endpoint e JOIN outbox.endpoint_status s ON s.id = e.id WHERE e.id = $1
          """
        guard try store.connection.query(sql, [.int8(id)]).count > 0 else { throw CommandFailure.unknownEndpoint(id) }
        if output.json {
          try output.print(sql, [.int8(id)], from: store, empty: "")
        } else {
          let (columns, rows) = try store.connection.queryText(sql, [.int8(id)])
          for (name, value) in zip(columns, rows[0]) { print("\(name.replacing("_", with: " ")): \(value ?? "-")") }
        }
      }
    }
  }

  struct Pause: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Send nothing until resumed; new events are kept for it.")
    @OptionGroup var database: DatabaseOptions
    @Argument(help: "The endpoint's id.") var id: Int64
    func run() async throws { try await setState(database, id, "pause", "paused: new events are kept for it") }
  }

  struct Resume: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Send again, beginning with what was kept.")
    @OptionGroup var database: DatabaseOptions
    @Argument(help: "The endpoint's id.") var id: Int64
    func run() async throws { try await setState(database, id, "resume", "enabled: what was kept is being sent") }
  }

  struct Disable: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Send nothing and keep no new events for it; what waits already is kept."
    )
    @OptionGroup var database: DatabaseOptions
    @Argument(help: "The endpoint's id.") var id: Int64
    func run() async throws { try await setState(database, id, "disable", "disabled: new events pass it by") }
  }

  struct RotateSecret: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Make a new signing secret and print it, this once. The old one signs beside it for a while."
    )
    @OptionGroup var database: DatabaseOptions
    @Argument(help: "The endpoint's id.") var id: Int64
    @Option(help: "Hours during which both secrets sign.") var overlapHours = 24
    func validate() throws {
      guard overlapHours >= 0 else { throw ValidationError("--overlap-hours must not be negative.") }
    }
    func run() async throws {
      let secret = try await database.withStore { [id, overlapHours] store in
        try unlessUnknown(id) {
          try store.connection.query(
            "SELECT outbox.rotate_secret($1, $2 * interval '1 hour')",
            [.int8(id), .int4(Int32(clamping: overlapHours))]
          ).string(0, 0)
        }
      }
      print("secret \(secret ?? "")  (give it to the receiver; it is not shown again)")
    }
  }

  struct Ping: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Send it a signed test event, of type martlet.ping, and wait for what comes of it."
    )
    @OptionGroup var database: DatabaseOptions
    @Argument(help: "The endpoint's id.") var id: Int64
    @Option(help: "Seconds to wait for the outcome.") var wait = 20

    func run() async throws {
      let event = try await database.withStore { [id] store in
        try unlessUnknown(id) { try store.connection.query("SELECT outbox.ping($1)::text", [.int8(id)]).string(0, 0) }
          ?? ""
      }
      print("event \(event)")
      let deadline = ContinuousClock.now + .seconds(wait)
      while ContinuousClock.now < deadline {
        let attempt = try await database.withStore { store in
          try store.connection.queryText(
            "SELECT outcome, status, duration_ms, error FROM outbox.attempt WHERE event_id = $1::text::uuid ORDER BY at LIMIT 1",
            [.text(event)]
          ).rows.first
        }
        if let attempt {
          guard attempt[0] == "delivered" else {
            throw CommandFailure(
              "It failed: \(attempt[3] ?? "no reason known"). It is tried again like any other event."
            )
          }
          print("delivered: status \(attempt[1] ?? "-") after \(attempt[2] ?? "-") ms")
          return
        }
        try await Task.sleep(for: .milliseconds(100))
      }
      throw CommandFailure("No attempt was made within \(wait) s. Is a dispatcher running, and the endpoint enabled?")
    }
  }

  struct Delete: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Take it away. Refuses while deliveries wait for it."
    )
    @OptionGroup var database: DatabaseOptions
    @Argument(help: "The endpoint's id.") var id: Int64
    @Flag(help: "Make the deliveries that wait for it dead letters.") var discardWaiting = false
    func run() async throws {
      let discarded = try await database.withStore { [id, discardWaiting] store in
        try unlessUnknown(id) {
          do {
            return try store.connection.query(
              "SELECT outbox.delete_endpoint($1, $2)",
              [.int8(id), .bool(discardWaiting)]
            ).int64(0, 0) ?? 0
          } catch let error as PostgresError where error.sqlState == "55006" {
            throw CommandFailure(
              "\(error.message). Use --discard-waiting to make them dead letters, or disable it and wait for those in flight."
            )
          }
        }
      }
      print("endpoint \(id) is deleted" + (discarded > 0 ? "; \(discarded) deliveries are dead letters now" : ""))
    }
  }

  fileprivate static func setState(_ database: DatabaseOptions, _ id: Int64, _ verb: String, _ done: String)
    async throws
  {
    try await database.withStore { store in
      _ = try unlessUnknown(id) { try store.connection.query("SELECT outbox.\(verb)($1)", [.int8(id)]) }
    }
    print("endpoint \(id) is \(done)")
  }

  fileprivate static func unlessUnknown<Value>(_ id: Int64, _ body: () throws -> Value) throws -> Value {
    do {
      return try body()
    } catch let error as PostgresError where error.sqlState == "P0002" {
      throw CommandFailure.unknownEndpoint(id)
    }
  }
}

private let setState = EndpointCommand.setState
private func unlessUnknown<Value>(_ id: Int64, _ body: () throws -> Value) throws -> Value {
  try EndpointCommand.unlessUnknown(id, body)
}

extension CommandFailure {
  static func unknownEndpoint(_ id: Int64) -> CommandFailure {
    CommandFailure("There is no endpoint \(id). `martlet endpoint list` shows those there are.")
  }
}
