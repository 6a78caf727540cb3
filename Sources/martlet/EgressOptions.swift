import ArgumentParser
import HTTPDelivery

/// Where requests may go. Without these: https and public addresses only.
struct EgressOptions: ParsableArguments {
  @Flag(help: "Allow endpoints with http:// URLs.") var allowHttp = false
  @Option(
    help: ArgumentHelp(
      "Allow addresses of this network although it is not public; repeat for several.",
      valueName: "cidr"
    )
  )
  var allowNetwork: [String] = []
  @Option(
    help: ArgumentHelp(
      "Never connect to addresses of this network, whatever else is allowed; repeat for several.",
      valueName: "cidr"
    )
  )
  var denyNetwork: [String] = []
  @Option(
    help: ArgumentHelp(
      "Send to this host only: hooks.example.com, or *.example.com for all names below it; repeat for several.",
      discussion: """
        Addresses in URLs are then refused, unless --allow-network names them. The host's address must pass the rules \
        for networks as well.
        """,
      valueName: "host"
    )
  )
  var allowHost: [String] = []
  @Option(
    help: ArgumentHelp(
      "Never send to this host, in the same form, even if --allow-host names it; repeat for several.",
      valueName: "host"
    )
  )
  var denyHost: [String] = []

  func policy() throws -> EgressPolicy {
    EgressPolicy(
      allowHTTP: allowHttp,
      allowedNetworks: try Self.values("--allow-network", allowNetwork) { try CIDR(parsing: $0) },
      deniedNetworks: try Self.values("--deny-network", denyNetwork) { try CIDR(parsing: $0) },
      allowedHosts: try Self.values("--allow-host", allowHost) { try HostPattern(parsing: $0) },
      deniedHosts: try Self.values("--deny-host", denyHost) { try HostPattern(parsing: $0) }
    )
  }

  private static func values<Value>(
    _ option: String,
    _ texts: [String],
    _ parse: (String) throws -> Value
  ) throws -> [Value] {
    try texts.map { text in
      do {
        return try parse(text)
      } catch {
        throw ValidationError("\(option): \(error)")
      }
    }
  }
}
