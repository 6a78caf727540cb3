import Postgres
import Schema

/// Brings schema `outbox` to the version of this build.
package struct Migrator {
  package let connection: Connection

  package init(_ connection: Connection) { self.connection = connection }

  /// What the database has.
  package enum Status: Sendable, Equatable {
    case absent
    case version(Int)
  }

  package static let newest = Migration.all.count

  package func status() throws(PostgresError) -> Status {
    let rows = try connection.query("SELECT to_regclass('outbox.migration') IS NOT NULL")
    guard try rows.required(rows.bool(0, 0), 0) else { return .absent }
    let version = try connection.query("SELECT max(version) FROM outbox.migration")
    return .version(Int(try version.int64(0, 0) ?? 0))
  }

  /// Migrations the database still lacks.
  package func pending() throws -> [Migration] {
    switch try status() {
    case .absent: return Migration.all
    case .version(let version) where version > Self.newest:
      throw MigrationError.databaseIsNewer(version)
    case .version(let version): return Migration.all.filter { $0.version > version }
    }
  }

  /// Applies what is pending, each file in its own transaction, and returns what it applied. Any number may run at once:
  /// one works, the others wait and find nothing to do.
  package func migrate(progress: (Migration) -> Void = { _ in }) throws -> [Migration] {
    // A session lock rather than a transaction's, since every file is a transaction. The files take another, so that
    // `psql -f` is kept out as well.
    try connection.execute("SELECT pg_advisory_lock(1296126548, 3)")
    defer { try? connection.execute("SELECT pg_advisory_unlock(1296126548, 3)") }
    let pending = try pending()
    for migration in pending {
      do {
        try connection.execute(migration.sql)
      } catch {
        try? connection.execute("ROLLBACK")
        throw error
      }
      progress(migration)
    }
    return pending
  }

  /// Refuses a schema this build cannot work with, in words an operator can act on.
  package func requireCurrent() throws {
    switch try status() {
    case .absent: throw MigrationError.schemaIsMissing
    case .version(let version) where version > Self.newest: throw MigrationError.databaseIsNewer(version)
    case .version(let version) where version < Self.newest: throw MigrationError.schemaIsOld(version)
    case .version: return
    }
  }
}

package enum MigrationError: Error, CustomStringConvertible, Equatable {
  case schemaIsMissing
  case schemaIsOld(Int)
  case databaseIsNewer(Int)

  package var description: String {
    switch self {
    case .schemaIsMissing:
      "This database has no schema \"outbox\". Run `martlet migrate` first."
    case .schemaIsOld(let version):
      "The schema is at version \(version), this martlet needs \(Migrator.newest). Run `martlet migrate`."
    case .databaseIsNewer(let version):
      "The schema is at version \(version), newer than this martlet knows (\(Migrator.newest)). Install a newer martlet."
    }
  }
}
