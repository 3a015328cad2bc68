"""Who may ask what: keys, rates, hosts, origins, proxies."""
