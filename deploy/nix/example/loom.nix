{ pkgs, ... }:
{
  networking.hostName = "loom";
  system.stateVersion = "26.05";

  services.loom-server = {
    enable = true;
    database.createLocally = true;
    nginx.enable = true;
    nginx.domain = "loom.example.com";
    openFirewall = true;
    # Files that only root can read; made by hand, or by sops-nix or agenix.
    secrets = {
      LOOM_SERVER_MASTER_KEY = "/etc/loom/master-key";
      LOOM_SERVER_ANTHROPIC_API_KEY = "/etc/loom/anthropic";
    };
    settings = {
      signingIn.signUp = "domains";
      signingIn.signUpDomains = [ "example.com" ];
      mailAndWebhooks.smtpHost = "mail.example.com";
      mailAndWebhooks.smtpFromAddress = "loom@example.com";
    };
  };
  # What comes with PostgreSQL is chosen once: a newer one does not read its files.
  services.postgresql.package = pkgs.postgresql_17;

  security.acme.acceptTerms = true;
  security.acme.defaults.email = "ops@example.com";

  services.loom-auto-update = {
    enable = true;
    repository = "git@git.example.com:loom.git";
    sshKeyFile = "/etc/loom/deploy-key";
    # This flake stays as it is; what `loom` in it is, is the head of the branch.
    flake = "/etc/nixos";
    flakeInput = "loom";
    webhookUrlFile = "/etc/loom/alert-webhook";
  };
  programs.ssh.knownHosts."git.example.com".publicKey = "ssh-ed25519 AAAA…";
}
