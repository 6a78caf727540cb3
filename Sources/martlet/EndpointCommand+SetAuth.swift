import ArgumentParser
import Dispatcher
import Foundation
import HTTPDelivery
import OutboxStore
import Postgres
import SecretSealing

extension EndpointCommand {
  struct SetAuth: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "set-auth",
      abstract: "Set what an endpoint is authenticated with beside the signature; it can never be read again.",
      discussion: """
        Secrets are read from files or standard input (-), never from the command line. --basic, --bearer-file and \
        --oauth2-… replace each other; a client certificate goes with any of them.

          martlet endpoint set-auth 3 --basic shop < password
          martlet endpoint set-auth 3 --bearer-file token
          martlet endpoint set-auth 3 --client-certificate client.pem --client-key client.key
          martlet endpoint set-auth 3 --oauth2-token-url https://… --oauth2-client-id shop --oauth2-client-secret-file -
          martlet endpoint set-auth 3 --clear
        """
    )
    @OptionGroup var database: DatabaseOptions
    @OptionGroup var key: SecretKeyOptions
    @OptionGroup var egress: EgressOptions
    @Argument(help: "The endpoint's id.") var id: Int64
    @Option(help: ArgumentHelp("Basic authentication with this user name.", valueName: "user")) var basic: String?
    @Option(help: ArgumentHelp("Where the password is. Default: standard input.", valueName: "file"))
    var passwordFile: String?
    @Option(help: ArgumentHelp("The environment variable that has the password.", valueName: "name"))
    var passwordEnv: String?
    @Option(help: ArgumentHelp("Where the bearer token is.", valueName: "file")) var bearerFile: String?
    @Option(
      help: ArgumentHelp("PEM: the client's certificate, then those that lead to its authority.", valueName: "file")
    )
    var clientCertificate: String?
    @Option(help: ArgumentHelp("PEM: its private key, without a passphrase.", valueName: "file")) var clientKey: String?
    @Option(
      name: .customLong("oauth2-token-url"),
      help: ArgumentHelp("OAuth 2 client credentials: where tokens come from.", valueName: "url")
    )
    var oauth2TokenURL: String?
    @Option(name: .customLong("oauth2-client-id"), help: ArgumentHelp("The client's id.", valueName: "id"))
    var oauth2ClientID: String?
    @Option(
      name: .customLong("oauth2-client-secret-file"),
      help: ArgumentHelp("Where the client's secret is. Default: standard input.", valueName: "file")
    )
    var oauth2ClientSecretFile: String?
    @Option(name: .customLong("oauth2-scope"), help: "The scope to ask for.") var oauth2Scope: String?
    @Option(name: .customLong("oauth2-audience"), help: "The audience to ask for.") var oauth2Audience: String?
    @Flag(help: "Take all credentials away.") var clear = false
    @Option(help: "With --clear: only basic, bearer, client_certificate or oauth2.") var kind: String?

    func validate() throws {
      let given = [
        basic != nil, bearerFile != nil, clientCertificate != nil || clientKey != nil, oauth2TokenURL != nil, clear,
      ].count { $0 }
      guard given == 1 else {
        throw ValidationError(
          "Say one of --basic, --bearer-file, --client-certificate with --client-key, --oauth2-token-url, or --clear."
        )
      }
      guard (clientCertificate == nil) == (clientKey == nil) else {
        throw ValidationError("--client-certificate and --client-key belong together.")
      }
      guard basic != nil || (passwordFile == nil && passwordEnv == nil) else {
        throw ValidationError("--password-file and --password-env belong to --basic.")
      }
      guard passwordFile == nil || passwordEnv == nil else {
        throw ValidationError("Say one of --password-file and --password-env.")
      }
      let hasOAuth2Settings =
        oauth2ClientID != nil || oauth2ClientSecretFile != nil || oauth2Scope != nil || oauth2Audience != nil
      guard oauth2TokenURL != nil || !hasOAuth2Settings else {
        throw ValidationError("--oauth2-… needs --oauth2-token-url.")
      }
      guard oauth2TokenURL == nil || oauth2ClientID != nil else {
        throw ValidationError("--oauth2-token-url needs --oauth2-client-id.")
      }
      guard kind == nil || clear else { throw ValidationError("--kind belongs to --clear.") }
      guard kind == nil || ["basic", "bearer", "client_certificate", "oauth2"].contains(kind) else {
        throw ValidationError("--kind must be basic, bearer, client_certificate or oauth2.")
      }
      _ = try egress.policy()
    }

    func run() async throws {
      guard let credential = try credential() else { return try await clearCredentials() }
      if let problem = credential.problem { throw CommandFailure("The credential is not usable: \(problem)") }
      let keyring = try key.keyring()
      try await database.withStore { [id] store in
        _ = try EndpointCommand.unlessUnknown(id) {
          if keyring.isEmpty { return try set(credential, store) }
          let use = SealedUse.credential(kind: credential.kind, endpoint: id)
          return try store.connection.query(
            "SELECT outbox.set_sealed_credential($1, $2, $3)",
            [.int8(id), .text(credential.kind), .text(try keyring.seal(credential.json, for: use))]
          )
        }
      }
      print("endpoint \(id) has \(credential.kind) credentials now\(keyring.isEmpty ? "" : ", stored encrypted")")
    }

    private func set(_ credential: Credential, _ store: OutboxStore) throws -> ResultSet {
      switch credential {
      case .basic(let username, let password):
        try store.connection.query(
          "SELECT outbox.set_basic_auth($1, $2, $3)",
          [.int8(id), .text(username), .text(password)]
        )
      case .bearer(let token):
        try store.connection.query("SELECT outbox.set_bearer_token($1, $2)", [.int8(id), .text(token)])
      case .clientCertificate(let certificate, let privateKey):
        try store.connection.query(
          "SELECT outbox.set_client_certificate($1, $2, $3)",
          [.int8(id), .text(certificate), .text(privateKey)]
        )
      case .oauth2(let client):
        try store.connection.query(
          "SELECT outbox.set_oauth2($1, $2, $3, $4, $5, $6)",
          [
            .int8(id), .text(client.tokenURL), .text(client.clientID), .text(client.clientSecret), .text(client.scope),
            .text(client.audience),
          ]
        )
      }
    }

    /// What the options say; nil: --clear.
    private func credential() throws -> Credential? {
      if let basic {
        if let passwordEnv {
          guard let password = ProcessInfo.processInfo.environment[passwordEnv] else {
            throw CommandFailure("The environment has no variable \(passwordEnv).")
          }
          return .basic(username: basic, password: password)
        }
        return .basic(username: basic, password: try SecretInput.readLine(passwordFile ?? "-", "password"))
      }
      if let bearerFile { return .bearer(token: try SecretInput.readLine(bearerFile, "token")) }
      if let clientCertificate, let clientKey {
        let certificate = try SecretInput.read(clientCertificate, "certificate")
        let privateKey = try SecretInput.read(clientKey, "private key")
        if let problem = KeyPairCheck.problem(certificate: certificate, privateKey: privateKey) {
          throw CommandFailure("The credential is not usable: \(problem)")
        }
        return .clientCertificate(certificate: certificate, privateKey: privateKey)
      }
      guard let oauth2TokenURL, let oauth2ClientID else { return nil }
      do {
        _ = try WebhookURL(validating: oauth2TokenURL, policy: try egress.policy())
      } catch let error as WebhookURLError {
        throw CommandFailure("The token URL is not usable: \(error)")
      }
      return .oauth2(
        OAuth2Client(
          tokenURL: oauth2TokenURL,
          clientID: oauth2ClientID,
          clientSecret: try SecretInput.readLine(oauth2ClientSecretFile ?? "-", "client secret"),
          scope: oauth2Scope,
          audience: oauth2Audience
        )
      )
    }

    private func clearCredentials() async throws {
      let cleared = try await database.withStore { [id, kind] store in
        try EndpointCommand.unlessUnknown(id) {
          try store.connection.query("SELECT outbox.clear_credential($1, $2)", [.int8(id), .text(kind)]).int64(0, 0)
            ?? 0
        }
      }
      print(
        cleared == 0 ? "endpoint \(id) has no such credentials" : "endpoint \(id): \(cleared) credentials taken away"
      )
    }
  }
}
