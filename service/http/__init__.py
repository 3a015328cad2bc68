"""Around the routes: admission, bodies, headers, errors as problem+json."""
