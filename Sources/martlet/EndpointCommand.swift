import ArgumentParser
import HTTPDelivery
import OutboxStore
import Postgres
import SecretSealing
import WebhookSignature

struct EndpointCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "endpoint",
    abstract: "Where to deliver: add, set, list, show, ping, pause, resume, disable, rotate-secret, set-auth, delete.",
    subcommands: [
      Add.self, Set.self, List.self, Show.self, Ping.self, Pause.self, Resume.self, Disable.self, RotateSecret.self,
      SetAuth.self,
      Delete.self,
    ]
  )

  struct Add: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Add an endpoint. Prints its id and, this once, its signing secret."
    )
    @OptionGroup var database: DatabaseOptions
    @OptionGroup var key: SecretKeyOptions
    @OptionGroup var egress: EgressOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "https://…") var url: String
    @OptionGroup var settings: EndpointSettingsOptions
    @Option(
      help: ArgumentHelp(
        "Where the signing secret is: whsec_… (HMAC) or whsk_… (ed25519); - is standard input. Default: a new one.",
        valueName: "file"
      )
    )
    var secretFile: String?
    @Flag(name: .customLong("ed25519"), help: "Sign with an ed25519 key, of which receivers need the public half only.")
    var isEd25519 = false

    func validate() throws {
      guard !isEd25519 || secretFile == nil else { throw ValidationError("Say one of --secret-file and --ed25519.") }
      _ = try egress.policy()
    }

    func run() async throws {
      do {
        _ = try WebhookURL(validating: url, policy: try egress.policy())
      } catch let error as WebhookURLError {
        throw CommandFailure("The URL is not usable: \(error)")
      }
      let secret = try secretFile.map { try SecretInput.readLine($0, "signing secret") }
      let signingKey: SigningKey
      do {
        signingKey = try secret.map { try SigningKey(parsing: $0) } ?? .new(isEd25519: isEd25519)
      } catch {
        throw CommandFailure("The secret is not usable: \(error)")
      }
      let keyring = try key.keyring()
      let (more, parameters) = try settings.settings().list(joinedBy: "=>", from: 2)
      let id = try await database.withStore { [url] store in
        // Sealed for this endpoint, so the endpoint comes first; in one transaction, so that there is none without a secret.
        try refusing {
          try store.connection.transaction { connection in
            let rows = try connection.query(
              "SELECT outbox.add_endpoint($1, signature => 'later'\(more.isEmpty ? "" : ", ")\(more))",
              [.text(url)] + parameters
            )
            let id = try rows.required(rows.int64(0, 0), 0)
            try rotate(connection, id, overlapHours: 0, signingKey, keyring)
            return id
          }
        }
      }
      if output.json {
        let (name, value) = signingKey.forReceiver
        print(#"{"id":\#(id),"\#(name)":"\#(value)"}"#)
      } else {
        print("endpoint \(id)")
        print(signingKey.announcement)
      }
    }
  }

  struct Set: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Change settings of an endpoint; those not given stay as they are. Running dispatchers follow at once."
    )
    @OptionGroup var database: DatabaseOptions
    @OptionGroup var egress: EgressOptions
    @Argument(help: "The endpoint's id.") var id: Int64
    @Option(help: "https://…") var url: String?
    @OptionGroup var settings: EndpointSettingsOptions

    func validate() throws { _ = try egress.policy() }

    func run() async throws {
      var changes = try settings.settings()
      if let url {
        do {
          _ = try WebhookURL(validating: url, policy: try egress.policy())
        } catch let error as WebhookURLError {
          throw CommandFailure("The URL is not usable: \(error)")
        }
        changes.append(.init(name: "url", expression: "$?::text", parameter: .text(url)))
      }
      guard !changes.isEmpty else { throw ValidationError("Say what to change; see martlet endpoint set --help.") }
      let (list, parameters) = changes.list(joinedBy: "=", from: 2)
      let found = try await database.withStore { [id] store in
        try refusing {
          try store.connection.query(
            "UPDATE outbox.endpoint SET \(list) WHERE id = $1 RETURNING id",
            [.int8(id)] + parameters
          ).count
        }
      }
      guard found > 0 else { throw CommandFailure.unknownEndpoint(id) }
      print("endpoint \(id) is changed: \(changes.map { $0.name.replacing("_", with: "-") }.joined(separator: ", "))")
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
            (SELECT string_agg(concat_ws(' ', k.kind, k.public_key, 'until ' || k.expires_at::timestamptz(0)), ', ' ORDER BY k.id DESC)
             FROM outbox.endpoint_key k WHERE k.endpoint_id = e.id AND (k.expires_at IS NULL OR k.expires_at > now())) AS signing_keys,
            (SELECT string_agg(c.kind || ' since ' || c.updated_at::timestamptz(0), ', ' ORDER BY c.kind)
             FROM outbox.endpoint_credential c WHERE c.endpoint_id = e.id) AS credentials
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
    @OptionGroup var key: SecretKeyOptions
    @Argument(help: "The endpoint's id.") var id: Int64
    @Option(help: "Hours during which both secrets sign.") var overlapHours = 24
    @Flag(name: .customLong("ed25519"), help: "Make an ed25519 key. Default: the same kind as before.")
    var isEd25519 = false
    @Flag(name: .customLong("hmac"), help: "Make an HMAC secret.") var isHMAC = false
    func validate() throws {
      guard overlapHours >= 0 else { throw ValidationError("--overlap-hours must not be negative.") }
      guard !isEd25519 || !isHMAC else { throw ValidationError("Say one of --ed25519 and --hmac.") }
    }
    func run() async throws {
      let keyring = try key.keyring()
      let fresh = try await database.withStore { [id, overlapHours, isEd25519, isHMAC] store in
        try unlessUnknown(id) {
          let kind = try store.connection.query(
            "SELECT kind FROM outbox.endpoint_key WHERE endpoint_id = $1 ORDER BY id DESC LIMIT 1",
            [.int8(id)]
          )
          let wasEd25519 = kind.count > 0 && kind.string(0, 0) == "ed25519"
          let fresh = SigningKey.new(isEd25519: isEd25519 || (wasEd25519 && !isHMAC))
          try rotate(store.connection, id, overlapHours: overlapHours, fresh, keyring)
          return fresh
        }
      }
      print(fresh.announcement)
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

  static func unlessUnknown<Value>(_ id: Int64, _ body: () throws -> Value) throws -> Value {
    do {
      return try body()
    } catch let error as PostgresError where error.sqlState == "P0002" {
      throw CommandFailure.unknownEndpoint(id)
    }
  }
}

/// What the database says of a value it does not take, without the traces of how it came to look at it.
private func refusing<Value>(_ body: () throws -> Value) throws -> Value {
  do {
    return try body()
  } catch let error as PostgresError
    where error.sqlState.hasPrefix("22") || error.sqlState.hasPrefix("23") || error.sqlState == "42601"
  {
    throw CommandFailure(error.message + (error.hint.map { "\n\($0)" } ?? ""))
  }
}

/// Stores a secret, sealed if there is a key to seal with.
private func rotate(_ connection: Connection, _ id: Int64, overlapHours: Int, _ key: SigningKey, _ keyring: Keyring)
  throws
{
  let stored = keyring.isEmpty ? key.encoded : try keyring.seal(key.encoded, for: .secret(endpoint: id))
  _ = try connection.query(
    "SELECT outbox.rotate_secret($1, $2 * interval '1 hour', $3, public_key => $4)",
    [.int8(id), .int4(Int32(clamping: overlapHours)), .text(stored), .text(key.publicKey)]
  )
}

extension SigningKey {
  fileprivate static func new(isEd25519: Bool) -> SigningKey { isEd25519 ? .generateEd25519() : .generate() }

  /// What a receiver needs: the shared secret, or the public half.
  fileprivate var forReceiver: (name: String, value: String) {
    publicKey.map { ("public_key", $0) } ?? ("secret", encoded)
  }

  fileprivate var announcement: String {
    publicKey.map { "public key \($0)  (for the receiver)" }
      ?? "secret \(encoded)  (give it to the receiver; it is not shown again)"
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
