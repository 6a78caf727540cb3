import Foundation

/// How to reach PostgreSQL: a libpq connection string (URI or keywords, several hosts allowed), completed by libpq's own
/// `PG*` environment variables, `~/.pgpass` and service files.
package struct ConnectionConfiguration: Sendable {
  /// `postgres://…` or `host=… dbname=…`; nil leaves everything to the environment.
  package var connectionString: String?
  package var applicationName: String
  /// Time for each host to accept the connection and authenticate. Whole seconds, at least 2 (libpq's own rule).
  package var connectTimeout: Duration
  /// The server ends a statement that takes longer. Zero: never.
  package var statementTimeout: Duration
  /// Run once on each new connection, after the settings above.
  package var setUp: [String]
  /// A statement for ``setUp``. Whoever may create an operator or a function in schema public, or wherever else the database's
  /// `search_path` leads, could otherwise have it run with the rights of this session.
  package static let pinSearchPath = "SET search_path = pg_catalog, pg_temp"
  /// Refuse hot standbys, so that a connection string with several hosts follows a failover.
  package var requiresWritable: Bool

  package init(
    connectionString: String? = nil,
    applicationName: String = "martlet",
    connectTimeout: Duration = .seconds(5),
    statementTimeout: Duration = .seconds(60),
    setUp: [String] = [],
    requiresWritable: Bool = true
  ) {
    self.connectionString = connectionString
    self.applicationName = applicationName
    self.connectTimeout = connectTimeout
    self.statementTimeout = statementTimeout
    self.setUp = setUp
    self.requiresWritable = requiresWritable
  }

  /// Keywords and values for `PQconnectdbParams`. What stands before `dbname` is a default that the connection string
  /// overrides; what stands after is ours.
  var parameters: [(String, String)] {
    let environment = ProcessInfo.processInfo.environment
    var pairs: [(String, String)] = [
      // A dead peer is noticed within about 15 s, whatever the kernel's defaults.
      ("keepalives", "1"), ("keepalives_idle", "5"), ("keepalives_interval", "3"), ("keepalives_count", "3"),
      ("tcp_user_timeout", "15000"),
      ("fallback_application_name", applicationName),
    ]
    if environment["PGCONNECT_TIMEOUT"] == nil {
      let seconds = min(max(2, connectTimeout.components.seconds), Int64(Int32.max) / 1000)
      pairs.append(("connect_timeout", String(seconds)))
    }
    if requiresWritable, environment["PGTARGETSESSIONATTRS"] == nil {
      pairs.append(("target_session_attrs", "read-write"))
    }
    if let connectionString { pairs.append(("dbname", connectionString)) }
    pairs.append(("client_encoding", "UTF8"))
    return pairs
  }

  /// The same, or why the connection string cannot be used.
  func checkedParameters() throws(PostgresError) -> [(String, String)] {
    if let connectionString { try ConnectionString.check(connectionString) }
    guard !applicationName.utf8.contains(0) else {
      throw PostgresError(.connection, message: "the application's name contains a zero byte")
    }
    return parameters
  }

  /// Within the server's range. Zero means no limit, so a limit is never rounded down to it.
  var statementTimeoutMilliseconds: Int64 {
    guard statementTimeout > .zero else { return 0 }
    return min(max(1, statementTimeout.milliseconds), Int64(Int32.max))
  }

  static let passwordHint = """
    The server asks for a password: put it into PGPASSWORD, ~/.pgpass or the connection string.
    """
}
