import Foundation

extension EmbeddedPostgres {
  package struct Options: Sendable {
    /// The directory of `postgres` and `initdb`. Default: `MARTLET_PG_BIN`, then `pg_config --bindir`, then the newest
    /// of `/usr/lib/postgresql/*/bin`, then `PATH`.
    package var binaries: String?
    /// Lines of postgresql.conf; they win over our own.
    package var settings: [String: String]
    /// A throwaway certificate authority and a certificate for localhost; connections over TCP must then use TLS.
    package var tls: Bool
    /// Where the server's own directory is made; the user it runs as must be able to enter. Default: `/tmp`, or
    /// `TMPDIR` if not root.
    package var directory: URL?
    /// Off, an operating system crash would corrupt the cluster; a crash of PostgreSQL alone does not.
    package var fsync: Bool
    package var startTimeout: Duration
    /// A command that becomes the server, such as `env` with variables for it.
    package var prefix: [String]

    package init(
      binaries: String? = nil,
      settings: [String: String] = [:],
      tls: Bool = false,
      directory: URL? = nil,
      fsync: Bool = false,
      startTimeout: Duration = .seconds(60),
      prefix: [String] = []
    ) {
      self.binaries = binaries
      self.settings = settings
      self.tls = tls
      self.directory = directory
      self.fsync = fsync
      self.startTimeout = startTimeout
      self.prefix = prefix
    }
  }

  /// PostgreSQL's shutdown modes.
  package enum StopMode: String, Sendable {
    /// Waits for clients to disconnect.
    case smart
    /// Rolls open transactions back and disconnects.
    case fast
    /// Exits without a checkpoint; the next start recovers from the WAL.
    case immediate

    var signal: Int32 {
      switch self {
      case .smart: SIGTERM
      case .fast: SIGINT
      case .immediate: SIGQUIT
      }
    }
  }
}
