import ArgumentParser
import OutboxStore
import Postgres

struct MigrateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "migrate",
    abstract: "Create schema \"outbox\", or bring it up to date.",
    discussion: """
      Safe to run again, and to run twice at once. Needs a role that may create a schema and roles. The same files work \
      with psql: for f in sql/*.sql; do psql -v ON_ERROR_STOP=1 -f "$f"; done
      """
  )

  @OptionGroup var database: DatabaseOptions
  @Flag(help: "Say which version the database has and what is pending; change nothing.") var status = false
  @Flag(help: "Print the SQL that would be run; change nothing.") var dryRun = false

  func run() async throws {
    try await database.withStore(requiresSchema: false) { store in
      let migrator = Migrator(store.connection)
      if status {
        let pending = try migrator.pending()
        switch try migrator.status() {
        case .absent: print("schema: none")
        case .version(let version): print("schema: version \(version)")
        }
        print("this martlet: version \(Migrator.newest)")
        print(pending.isEmpty ? "up to date" : "pending: \(pending.map(\.name).joined(separator: ", "))")
      } else if dryRun {
        for migration in try migrator.pending() { print(migration.sql) }
      } else {
        let applied = try migrator.migrate { print("applied \($0.name)") }
        print(applied.isEmpty ? "up to date (version \(Migrator.newest))" : "schema is at version \(Migrator.newest)")
      }
    }
  }
}
