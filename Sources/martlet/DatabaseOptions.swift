import ArgumentParser
import Foundation
import OutboxStore
import Postgres

/// Which database, the same way for every command.
struct DatabaseOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The database: postgres://user@host/name, or libpq keywords. Several hosts follow a failover.",
      discussion:
        "Default: DATABASE_URL, then libpq's own PGHOST, PGDATABASE, PGUSER, … Passwords: PGPASSWORD or ~/.pgpass.",
      valueName: "url"
    )
  )
  var databaseUrl: String?

  func validate() throws {
    if let databaseUrl, databaseUrl.allSatisfy(\.isWhitespace) {
      throw ValidationError("--database-url is empty. Is a shell variable not set?")
    }
  }

  var connectionString: String? { databaseUrl ?? ProcessInfo.processInfo.environment["DATABASE_URL"] }

  func configuration(applicationName: String = "martlet") -> ConnectionConfiguration {
    ConnectionConfiguration(
      connectionString: connectionString,
      applicationName: applicationName,
      setUp: [ConnectionConfiguration.pinSearchPath]
    )
  }

  /// Connects, checks the schema, and turns what can go wrong into words with a remedy.
  func withStore<Value: Sendable>(
    requiresSchema: Bool = true,
    _ body: @Sendable (OutboxStore) throws -> Value
  ) async throws -> Value {
    let session = Session(configuration())
    do {
      return try await session.withConnection { connection in
        if requiresSchema { try Migrator(connection).requireCurrent() }
        return try body(OutboxStore(connection))
      }
    } catch let error as PostgresError {
      throw CommandFailure(error)
    }
  }
}

/// What went wrong, and what to do: printed as it is.
struct CommandFailure: Error, CustomStringConvertible {
  var description: String

  init(_ description: String) { self.description = description }

  init(_ error: PostgresError) {
    switch (error.kind, error.sqlState) {
    case (.connection, _) where error.message.contains("password") || error.message.contains("authentication"):
      description = """
        The database refuses the login: \(error.message)
        Give the password in PGPASSWORD, in ~/.pgpass or in the URL, for the user named there.
        """
    case (.connection, _) where error.message.contains("does not exist"):
      description = """
        The database refuses the connection: \(error.message)
        Create it (createdb, createuser), or name another with --database-url or DATABASE_URL.
        """
    case (.connection, _):
      description = """
        The database cannot be used: \(error.message)
        Check --database-url, DATABASE_URL or PGHOST, PGPORT, PGDATABASE, PGUSER; is PostgreSQL running?
        """
    case (_, "42501"):
      description = """
        The database refuses: \(error.message).
        Use a role that may do this: GRANT outbox_operator (look and repair), outbox_dispatcher (dispatch) or \
        outbox_publisher (publish) TO it; migrations need the owner of the database.
        """
    default:
      description = error.description
    }
  }
}
