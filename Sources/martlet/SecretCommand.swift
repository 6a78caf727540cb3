import ArgumentParser
import Dispatcher
import OutboxStore
import SecretSealing

struct SecretCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "secret",
    abstract: "Encryption of secrets in the database: new-key, status, seal.",
    discussion: """
      With a key, dispatchers and this command line store signing secrets and credentials encrypted (AES-256-GCM). Give \
      the same key to all of them, at about the same time: a dispatcher without it sends nothing to endpoints whose \
      secrets it cannot read. A lost key cannot be replaced: rotate the secrets and set the credentials again.

      To rotate the key, add the new one behind the old one everywhere, then put it first everywhere, run `martlet secret \
      seal`, and take the old one away when `martlet secret status` shows it no more.
      """,
    subcommands: [NewKey.self, Status.self, Seal.self]
  )

  struct NewKey: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Print a new key, for MARTLET_SECRET_KEY or --secret-key-file. Nothing is stored."
    )
    func run() { print(Keyring.newKey()) }
  }

  struct Status: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "How many secrets and credentials are encrypted, and under which key."
    )
    @OptionGroup var database: DatabaseOptions
    @OptionGroup var key: SecretKeyOptions
    @OptionGroup var output: OutputOptions

    func run() async throws {
      let keyring = try key.keyring()
      try await database.withStore { [output] store in
        try output.print(
          """
          SELECT what, sealed_by AS key,
            CASE WHEN sealed_by IS NULL THEN 'in plain' WHEN sealed_by = $1 THEN 'encrypted'
                 WHEN sealed_by = ANY ($2) THEN 'encrypted under an older key'
                 ELSE 'encrypted under a key not given here' END AS state,
            count(*) AS values
          FROM outbox.sealing GROUP BY what, sealed_by ORDER BY what DESC, sealed_by NULLS FIRST
          """,
          [.text(keyring.sealingKeyID), .textArray(keyring.keyIDs)],
          from: store,
          empty: "There are no secrets and no credentials."
        )
      }
    }
  }

  struct Seal: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Encrypt under the first key what is in plain or under an older one. Dispatchers do so every minute.",
      discussion: "The role needs outbox_dispatcher. Exit status 1: some values could not be decrypted."
    )
    @OptionGroup var database: DatabaseOptions
    @OptionGroup var key: SecretKeyOptions

    func run() async throws {
      let keyring = try key.keyring()
      guard !keyring.isEmpty else {
        throw CommandFailure(
          "There is no key. Set MARTLET_SECRET_KEY or --secret-key-file; `martlet secret new-key` makes one."
        )
      }
      let report = try await database.withStore { try SealingSweep(keyring).run($0) }
      print("encrypted \(report.sealed), encrypted anew \(report.resealed), under key \(keyring.sealingKeyID ?? "-")")
      guard report.unopened == 0 else {
        throw CommandFailure("\(report.unopened) values cannot be read:\n\(report.problems.joined(separator: "\n"))")
      }
    }
  }
}
