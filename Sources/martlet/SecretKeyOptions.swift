import ArgumentParser
import SecretSealing

/// What secrets are sealed with, the same way for every command.
struct SecretKeyOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "A file of the keys that secrets in the database are encrypted with.",
      discussion: """
        A key a line (martlet secret new-key prints one), # begins a comment. The first encrypts, all decrypt. Default: \
        the keys in MARTLET_SECRET_KEY, separated by commas; without any, secrets are stored in plain.
        """,
      valueName: "file"
    )
  )
  var secretKeyFile: String?

  func keyring() throws -> Keyring {
    do {
      return try Keyring.load(file: secretKeyFile) { "Warning: \($0)".printToStandardError() }
    } catch {
      throw CommandFailure("The keys for secrets cannot be used: \(error).")
    }
  }
}
