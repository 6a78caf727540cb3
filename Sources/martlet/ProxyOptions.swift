import ArgumentParser
import Foundation
import HTTPDelivery

/// Through which proxy requests go.
struct ProxyOptions: ParsableArguments {
  static let variable = "MARTLET_HTTP_PROXY"

  @Option(
    help: ArgumentHelp(
      "Send all requests through this proxy: http://[user:password@]host:port.",
      discussion: """
        Default: \(ProxyOptions.variable), which keeps a password off the command line; http_proxy is ignored. \
        The proxy resolves and dials the endpoints' hosts, so it must itself refuse private addresses: \
        --allow-network and --deny-network then hold only for addresses written in URLs. The rules for hosts hold as \
        ever.
        """,
      valueName: "url"
    )
  )
  var httpProxy: String?

  func proxy(environment: [String: String] = ProcessInfo.processInfo.environment) throws -> HTTPProxy? {
    let fromEnvironment = environment[Self.variable].flatMap { $0.isEmpty ? nil : $0 }
    guard let text = httpProxy ?? fromEnvironment else { return nil }
    do {
      return try HTTPProxy(parsing: text)
    } catch {
      throw ValidationError("\(httpProxy == nil ? Self.variable : "--http-proxy"): \(error)")
    }
  }
}
